"""What a process takes: memory, threads, descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent
import psutil

_EVERY_SEC = 0.1


class Taken(NamedTuple):
    """What a process has: resident memory, its threads and open descriptors."""

    memory_bytes: int
    threads: int
    descriptors: int


def taken(pid: int) -> Taken:
    """What a process takes now."""
    process = psutil.Process(pid)
    with process.oneshot():
        return Taken(process.memory_info().rss, process.num_threads(), process.num_fds())


@contextmanager
def watched(pid: int) -> Iterator[list[Taken]]:
    """Looks at a process ten times a second, beside what is done meanwhile."""
    seen = [taken(pid)]

    def look() -> None:
        while True:
            gevent.sleep(_EVERY_SEC)
            seen.append(taken(pid))

    looking = gevent.spawn(look)
    try:
        yield seen
    finally:
        looking.kill()
        seen.append(taken(pid))
