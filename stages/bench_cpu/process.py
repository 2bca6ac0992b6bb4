"""The parent's side of a worker process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.bench_cpu.machine import pinned
from stages.bench_cpu.variants import Variant
from stages.core.errors import InputError, StageFailed

_TAIL_CHARS = 1_500


class Worker:
    """A variant in a process of its own, loaded and waiting.

    Args:
        variant: what it runs.
        threads: threads of its engine.
        context_tokens: longest prompt with its answer.
        pin: keep it to as many cores as it has threads.
        use_mmap: map a GGUF file instead of reading it.

    Raises:
        InputError: the model cannot be loaded.
        StageFailed: the process died.
    """

    def __init__(
        self,
        variant: Variant,
        threads: int,
        context_tokens: int,
        *,
        pin: bool = False,
        use_mmap: bool = True,
    ) -> None:
        self.variant = variant
        # Torch takes its number of threads from the environment before it starts any.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        with pinned(threads) if pin else nullcontext():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stages.bench_cpu.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                text=True,
                encoding="utf-8",
            )
        try:
            self.loaded = self._ask(
                op="load",
                engine=variant.engine,
                path=str(variant.path),
                threads=threads,
                context_tokens=context_tokens,
                dtype=variant.dtype,
                use_mmap=use_mmap,
            )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        """Of the operating system."""
        return self._process.pid

    def answer(self, rows: Sequence[str], mode: str) -> list[dict[str, Any]]:
        """A sample for each row (JSONL lines), in order; see `stages.bench_cpu.worker`."""
        samples: list[dict[str, Any]] = self._ask(op="answer", mode=mode, rows=rows)["samples"]
        return samples

    def speed(self, rows: Sequence[str], tokens: int) -> list[dict[str, Any]]:
        """A timed pass over each row's prompt and `tokens` passes over one token after it."""
        samples: list[dict[str, Any]] = self._ask(op="speed", rows=rows, tokens=tokens)["samples"]
        return samples

    def distributions(
        self, rows: Sequence[str], folder: Path, *, write: bool
    ) -> list[dict[str, Any]]:
        """Keeps the distributions at the right answers' tokens, or compares; see `divergence`."""
        samples: list[dict[str, Any]] = self._ask(
            op="distributions", rows=rows, folder=str(folder), write=write
        )["samples"]
        return samples

    def memory(self) -> dict[str, Any]:
        """What the process takes now, and its peak."""
        return self._ask(op="memory")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None and not stream.closed:
                _close_quietly(stream)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise InputError(str(reply["error"]))
        return reply

    def _died(self) -> StageFailed:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", errors="replace").splitlines()
        # A native backtrace says nothing to a reader; its frames end in an address.
        told = " | ".join(line.strip() for line in lines if line.strip() and "[0x" not in line)
        tail = told.strip()[-_TAIL_CHARS:]
        reason = "killed, most likely for lack of memory" if code == -9 else f"ended with {code}"
        return StageFailed(
            f"the process of {self.variant.name} was {reason}: {tail or 'no output'}"
        )


def _close_quietly(stream: Any) -> None:
    """Closes a pipe whose other end is gone; what was not yet sent is of no interest."""
    try:
        stream.close()
    except BrokenPipeError:
        return
