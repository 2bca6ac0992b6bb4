"""Running llama.cpp's own programs; what they print becomes progress, and a reason if they fail."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import MissingDependency, StageFailed

LLAMA_CPP = Path("/opt/llama.cpp")
CONVERTER = LLAMA_CPP / "convert_hf_to_gguf.py"
IMATRIX = LLAMA_CPP / "bin" / "llama-imatrix"
QUANTIZE = LLAMA_CPP / "bin" / "llama-quantize"

_TAIL_LINES = 12
_PROGRESS_EVERY_SEC = 2.0


def run_tool(label: str, command: Sequence[object], folder: Path, progress: str) -> None:
    """Runs a program in a folder and waits for it.

    Args:
        label: what it makes, for progress and errors.
        command: program and arguments; a `.py` runs under this interpreter.
        folder: working directory.
        progress: regular expression; the text it matches in a line is worth showing.

    Raises:
        MissingDependency: the program is not installed here.
        StageFailed: it ended with an error; its last lines are in the sentence.
    """
    program = Path(str(command[0]))
    if not program.is_file():
        raise MissingDependency(
            f"{program} is not here: run the stage in the converter image, which has llama.cpp"
        )
    interpreter = [sys.executable] if program.suffix == ".py" else []
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    shown_sec = time.monotonic()
    with subprocess.Popen(
        [*interpreter, *map(str, command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                tail.append(line.strip())
            found = re.search(progress, line)
            if found and time.monotonic() - shown_sec >= _PROGRESS_EVERY_SEC:
                shown_sec = time.monotonic()
                print(f"{label}: {found.group(0)}", flush=True)
    if process.returncode != 0:
        raise StageFailed(
            f"{label}: {program.name} ended with code {process.returncode}: " + " | ".join(tail)
        )
