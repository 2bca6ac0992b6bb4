"""More requests than can be answered: what the service refuses, how fast, and how it recovers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.intent.rows import Row
from stages.loadtest import clients, loads, servers
from stages.loadtest.bars import Bar, at_most
from stages.loadtest.flood import flood
from stages.loadtest.samples import Limits, Sample, normal_after_sec, per_second, statuses, took
from stages.loadtest.watch import Taken, watched

TIMES = (4, 16)
DEADLINE_SEC = 30.0
"""The service's own, which it is started with."""
REFUSALS = (429, 503)
# Nearly as many as the service lets wait, so that memory is compared with that at capacity.
_CLIENTS = 48
BODIES = 4
_RECOVERY_SEC = 12.0
_SETTLED = Limits(3.0, 200, 30.0)


def measure(
    model: Path, rows: Sequence[Row], threads: int, connections: int, lasting_sec: float
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[Sample]]]]:
    """Measures the capacity, then floods the service with multiples of it.

    Args:
        model: GGUF file.
        rows: of a dataset, 20 or more.
        threads: of the service.
        connections: of the flood.
        lasting_sec: of each flood.

    Returns:
        Figures, and all samples by phase.
    """
    some = loads.known(rows, 1)[:BODIES]
    kind = servers.service(model, threads, ["--deadline-sec", str(DEADLINE_SEC)])
    bodies = [json.dumps(kind.body(row)).encode() for row in some]
    with servers.running([kind]) as [service]:

        def calm(count: int, limits: Limits) -> list[Sample]:
            return clients.ask(service, itertools.cycle(some), count, limits)

        calm(_CLIENTS, _SETTLED)
        capacity = calm(_CLIENTS, _SETTLED)
        groups = [({"phase": "capacity"}, capacity)]
        per_sec, floods = per_second(capacity), []
        for times in TIMES:
            before = calm(1, _SETTLED)
            with watched(service.process.pid) as seen:
                flooded = flood(
                    service.address + kind.path, bodies, times * per_sec, connections, lasting_sec
                )
            after = calm(1, Limits(_RECOVERY_SEC, 0, _RECOVERY_SEC))
            for phase, samples in (("before", before), ("flood", flooded), ("after", after)):
                groups.append(({"phase": phase, "times": times}, samples))
            floods.append({"times": times} | figures(before, flooded, after, seen))
    return {"capacity_per_sec": per_sec, "floods": floods}, groups


def figures(
    before: Sequence[Sample],
    flooded: Sequence[Sample],
    after: Sequence[Sample],
    seen: Sequence[Taken],
) -> dict[str, Any]:
    """What one flood did: to its own requests, to the process, and to those who came later."""
    end_sec = max(one.start_sec for one in flooded)
    sent_sec = end_sec - min(one.start_sec for one in flooded)
    usual_sec = took(before, 0.9) or 0.0
    memory = [one.memory_bytes for one in seen]
    return {
        "sent_per_sec": len(flooded) / sent_sec if sent_sec else None,
        "statuses": statuses(flooded),
        "answered_per_sec": per_second(flooded),
        "refused_p50_sec": took(flooded, 0.5, REFUSALS),
        "refused_p99_sec": took(flooded, 0.99, REFUSALS),
        "answered_p50_sec": took(flooded, 0.5),
        "answered_p99_sec": took(flooded, 0.99),
        "memory_before_bytes": memory[0],
        "memory_most_bytes": max(memory),
        "memory_after_bytes": memory[-1],
        "usual_p90_sec": usual_sec,
        "normal_after_sec": normal_after_sec(after, end_sec, usual_sec),
    }


def bars(found: dict[str, Any]) -> list[Bar]:
    """The aims of each flood."""
    made = []
    for one in found["floods"]:
        head = f"{one['times']}× capacity"
        refused = one["refused_p99_sec"]
        other = {
            status: count
            for status, count in one["statuses"].items()
            if status not in ("200", *map(str, REFUSALS))
        }
        more = one["memory_most_bytes"] / one["memory_before_bytes"] - 1
        made += [
            at_most(f"{head}: refusals, p99", refused and 1e3 * refused, 100, " ms"),
            at_most(f"{head}: answers, p99", one["answered_p99_sec"], DEADLINE_SEC, " s"),
            at_most(f"{head}: neither answered nor refused", float(sum(other.values())), 0, ""),
            at_most(f"{head}: more memory", 100 * more, 5, " %"),
            at_most(f"{head}: as quick as before after", one["normal_after_sec"], 10, " s"),
        ]
    return made
