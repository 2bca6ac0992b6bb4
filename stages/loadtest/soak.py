"""Many requests in a row: errors, and whether the service keeps what it should give back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.intent.rows import Row
from stages.loadtest import clients, loads, servers
from stages.loadtest.bars import Bar, at_most
from stages.loadtest.samples import Limits, Sample, per_second, statuses, took
from stages.loadtest.watch import Taken, taken

_CLIENTS = 8
_KNOWN = 20
# One of so many is on a catalog that nobody asked about before.
_UNKNOWN_EVERY = 10
PARTS = 10
# Longer than the service leaves an unused connection open is not needed: clients close theirs.
_PAUSE_SEC = 2.0
_HOUR_SEC = 3_600.0


def measure(
    model: Path, rows: Sequence[Row], threads: int, requests: int
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[Sample]]]]:
    """Asks for warmth, then so many requests in ten parts, and looks at the process after each.

    Args:
        model: GGUF file.
        rows: of a dataset, 20 or more.
        threads: of the service.
        requests: after the warm-up, which has a fifth as many.

    Returns:
        Figures, and all samples by part.
    """
    asked = _mixed(rows)
    with servers.running([servers.service(model, threads)]) as [service]:

        def part(count: int) -> tuple[list[Sample], Taken]:
            some = itertools.islice(asked, count)
            samples = clients.ask(service, some, _CLIENTS, Limits(_HOUR_SEC, 0, _HOUR_SEC))
            time.sleep(_PAUSE_SEC)
            return samples, taken(service.process.pid)

        _, warm = part(requests // 5)
        parts = [part(requests // PARTS) for _ in range(PARTS)]
    groups = [({"part": number}, samples) for number, (samples, _) in enumerate(parts)]
    return figures([samples for samples, _ in parts], [warm, *(one for _, one in parts)]), groups


def _mixed(rows: Sequence[Row]) -> Iterator[Row]:
    known, unknown = itertools.cycle(loads.known(rows, _KNOWN)), loads.unknown(rows, seed=1)
    for number in itertools.count():
        yield next(known if number % _UNKNOWN_EVERY else unknown)


def figures(parts: Sequence[Sequence[Sample]], seen: Sequence[Taken]) -> dict[str, Any]:
    """What all parts add up to; `seen` begins with the process after the warm-up."""
    everything = [one for part in parts for one in part]
    return {
        "requests": len(everything),
        "statuses": statuses(everything),
        "right": sum(one.right is True for one in everything),
        "per_sec_by_part": [per_second(part) for part in parts],
        "p50_sec": took(everything, 0.5),
        "p99_sec": took(everything, 0.99),
        "taken": [one._asdict() for one in seen],
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """The aims."""
    errors = found["requests"] - found["statuses"].get("200", 0)
    made = [at_most(f"{found['requests']:,} requests: errors", float(errors), 0, "")]
    first, last = found["taken"][0], found["taken"][-1]
    for name, words in (
        ("memory_bytes", "resident memory"), ("threads", "threads"), ("descriptors", "descriptors")
    ):  # fmt: skip
        change = 100 * abs(last[name] / first[name] - 1)
        note = f"{first[name]:,} and {last[name]:,}"
        made.append(at_most(f"change of {words}", change, 2, " %", note))
    return made
