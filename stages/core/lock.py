"""One run at a time on one artifacts folder."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from stages.core.errors import InputError

LOCK_NAME = ".lock"


@contextmanager
def hold(artifacts: Path, *, wait: bool, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the artifacts folder. The kernel lets go of it when the process ends, however it ends.

    Args:
        artifacts: The folder.
        wait: Wait for another run to end instead of refusing.
        tell: Is given one sentence when there is something to wait for.

    Raises:
        InputError: Another run holds it and `wait` is false.
    """
    artifacts.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(artifacts / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            if not wait:
                raise InputError(
                    f"{artifacts} is in use by another run ({holder}); "
                    "wait for it to end, or leave out --no-wait"
                ) from None
            tell(f"waiting for another run on {artifacts} to end ({holder})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "since": since}).encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:  # It has the lock and has not yet said who it is.
        return "just started"
    return f"process {record['pid']}, since {record['since']}"
