"""Long programs: their lines in a log and on the screen while they run."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_GRACE_SEC = 15


def stream(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None],
    on_interrupt: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> int:
    """Run a program to its end, passing on every line that it prints.

    A Ctrl-C at the terminal does not reach it: the caller's interrupt is turned into
    `on_interrupt`, then into SIGTERM, and the program is waited for.

    Args:
        command: Program and arguments.
        environment: All its environment variables.
        log: File that gets all its output.
        on_line: Is given each line.
        on_interrupt: Ends what the program started elsewhere, a container for example.
        folder: Working folder.

    Returns:
        Its exit code; 128 plus the number if a signal ended it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                kept.flush()
                on_line(line.rstrip("\n"))
            process.wait()
        except BaseException:
            if on_interrupt is not None:
                on_interrupt()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(_GRACE_SEC)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    code = process.returncode
    return code if code >= 0 else 128 - code
