"""The machine beyond `core.hostinfo`: what a timing depends on, and where timed threads may run."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")
_CPUINFO = Path("/proc/cpuinfo")
# Of eight bytes each, a gigabyte: more than a cache holds.
_READ_NUMBERS = 1 << 27
_READ_RUNS = 5


def describe() -> dict[str, Any]:
    """Facts that are left out where the system does not tell them.

    Returns:
        `frequency_mhz` (of the first usable core, now), `frequency_max_mhz`, `frequency_governor`,
        `threads_per_core`, `cache_bytes` (name to size, of one core), `load_average` (of the
        minute before the bench: other programs' work).
    """
    usable = _usable()
    first = usable[0] if usable else 0
    frequency = _CPU / f"cpu{first}" / "cpufreq"
    now_khz, most_khz = (
        _number(frequency / "scaling_cur_freq"),
        _number(frequency / "cpuinfo_max_freq"),
    )
    facts = {
        "frequency_mhz": now_khz / 1000 if now_khz else _cpuinfo_mhz(),
        "frequency_max_mhz": most_khz / 1000 if most_khz else None,
        "frequency_governor": _text(frequency / "scaling_governor"),
        "threads_per_core": len(_siblings(first)) or None,
        "cache_bytes": _caches(first) or None,
        "load_average": round(os.getloadavg()[0], 2),
    }
    return {name: value for name, value in facts.items() if value is not None}


def choose_cores(threads: int) -> list[int]:
    """Cores for so many threads, one of each physical core first; all that are usable if too few.

    Returns:
        Empty where the system cannot pin.
    """
    seen: dict[int, int] = {}
    ranked = []
    for core in _usable():
        physical = min(_siblings(core) or [core])
        seen[physical] = seen.get(physical, -1) + 1
        ranked.append((seen[physical], core))
    return sorted(core for _, core in sorted(ranked)[:threads])


def read_bytes_per_sec(threads: int) -> float:
    """How fast so many threads read memory: the best of a few runs.

    A product of vectors would not do: the library behind it takes one at a time.
    """
    import numpy

    with pinned(threads), ThreadPoolExecutor(threads) as pool:
        share = _READ_NUMBERS // threads
        arrays = list(pool.map(lambda _: numpy.ones(share, numpy.int64), range(threads)))
        took_sec = []
        for _ in range(_READ_RUNS):
            started_sec = time.perf_counter()
            list(pool.map(numpy.bitwise_or.reduce, arrays))
            took_sec.append(time.perf_counter() - started_sec)
    return sum(array.nbytes for array in arrays) / min(took_sec)


@contextmanager
def pinned(threads: int) -> Iterator[list[int]]:
    """Programs started meanwhile, by this thread, keep to the cores of `choose_cores`."""
    cores, before = choose_cores(threads), _usable()
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        if cores:
            os.sched_setaffinity(0, before)


def _usable() -> list[int]:
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else []


def _siblings(core: int) -> list[int]:
    """The logical cores of a core, itself too: `0-1` or `0,64`."""
    text = _text(_CPU / f"cpu{core}" / "topology" / "thread_siblings_list") or ""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def _caches(core: int) -> dict[str, int]:
    found = {}
    for index in sorted((_CPU / f"cpu{core}" / "cache").glob("index*")):
        size, kind = _text(index / "size") or "", _text(index / "type")
        match = re.fullmatch(r"(\d+)K", size)
        if match and kind != "Instruction":
            found[f"L{_text(index / 'level')}"] = int(match[1]) * 1024
    return found


def _cpuinfo_mhz() -> float | None:
    match = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _text(_CPUINFO) or "", re.MULTILINE)
    return float(match[1]) if match else None


def _number(path: Path) -> int | None:
    text = _text(path) or ""
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
