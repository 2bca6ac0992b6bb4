"""The service beside the servers of llama.cpp, asked in turn on the same machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from stages.intent.rows import Row
from stages.loadtest import clients, loads, servers
from stages.loadtest.bars import Bar, at_least, markdown
from stages.loadtest.samples import Limits, Sample, per_second, statuses, took

MANY = 16
_KNOWN = 20
_WARM_UP = 2 * loads.CATALOG_LINES


class Load(NamedTuple):
    """What is asked: on how many known catalogs (0 for none known), by how many clients."""

    catalogs: int
    clients: int

    @property
    def name(self) -> str:
        what = {0: "no catalog known", 1: "one catalog"}.get(self.catalogs, "20 catalogs")
        return f"{what}, {self.clients} client{'s' if self.clients > 1 else ''}"


LOADS = [Load(catalogs, count) for catalogs in (1, _KNOWN, 0) for count in (1, MANY)]
Group = tuple[dict[str, Any], list[Sample]]


def measure(
    model: Path, rows: Sequence[Row], threads: int, rounds: int, limits: Limits, exact_rows: int
) -> list[Group]:
    """Asks every server for every load in every round, one after the other.

    Args:
        model: GGUF file.
        rows: of a dataset, 20 or more.
        threads: of each server.
        rounds: how often everything is done.
        limits: of one measurement.
        exact_rows: rows with their own catalogs that each server answers first, for accuracy.

    Returns:
        Samples by server, load and round; the load `exact` is that of the rows' own catalogs.
    """
    kinds = [servers.service(model, threads), *servers.others(model, threads)]
    groups: list[Group] = []
    with servers.running(kinds) as started:
        everything = Limits(0, exact_rows, limits.most_sec)
        for server in started:
            samples = clients.ask(server, iter(rows[:exact_rows]), 1, everything)
            groups.append(({"server": server.kind.name, "load": "exact", "round": 0}, samples))
        for number, load, server in itertools.product(range(rounds), LOADS, started):
            asked = _rows(rows, load, number)
            if load.catalogs:
                clients.ask(
                    server, iter(loads.known(rows, load.catalogs)[:_WARM_UP]), load.clients,
                    Limits(limits.most_sec, 0, limits.most_sec),
                )  # fmt: skip
            samples = clients.ask(server, asked, load.clients, limits)
            groups.append(
                ({"server": server.kind.name, "load": load.name, "round": number}, samples)
            )
            print(
                f"{number} {load.name}, {server.kind.name}: {per_second(samples):.1f}/s",
                flush=True,
            )
    return groups


def _rows(rows: Sequence[Row], load: Load, number: int) -> Iterator[Row]:
    """Rows to ask; the same for every server in a round, and unknown ones in that round alone."""
    if load.catalogs:
        return itertools.cycle(loads.known(rows, load.catalogs))
    return loads.unknown(rows, seed=100 * number + load.clients)


def figures(groups: Sequence[Group]) -> dict[str, dict[str, dict[str, Any]]]:
    """By load and server: medians over the rounds, and what all rounds add up to."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for load, server in dict.fromkeys((one["load"], one["server"]) for one, _ in groups):
        rounds = [
            samples for one, samples in groups if (one["load"], one["server"]) == (load, server)
        ]
        everything = list(itertools.chain.from_iterable(rounds))
        p50s_sec = [p50_sec for one in rounds if (p50_sec := took(one, 0.5)) is not None]
        found.setdefault(load, {})[server] = {
            "requests": len(everything),
            "per_sec": median(map(per_second, rounds)),
            "p50_sec": median(p50s_sec) if p50s_sec else None,
            "p99_sec": took(everything, 0.99),
            "right": sum(one.right is True for one in everything),
            "statuses": statuses(everything),
        }
    return found


def bars(groups: Sequence[Group]) -> list[Bar]:
    """What the service gains over the better of the others, in the median of the rounds."""
    made = []
    for load in LOADS:
        if load.clients == 1:
            least = 3.0 if load.catalogs else 1.3
            gains = _gains(groups, load, _quickness)
            made.append(at_least(f"{load.name}, p50 against the quickest", *_middle(gains, least)))
        else:
            gains = _gains(groups, load, per_second, servers.LLAMA_SERVER)
            made.append(
                at_least(f"{load.name}, requests/s against llama-server", *_middle(gains, 3.0))
            )
    exact = figures(groups)["exact"]
    mine = exact[servers.SERVICE]["right"]
    best = max(one["right"] for name, one in exact.items() if name != servers.SERVICE)
    made.append(
        Bar(
            "exact answers, rows with their own catalogs", "not fewer", f"{mine} and {best}",
            mine >= best,
        )
    )  # fmt: skip
    return made


def _quickness(samples: Sequence[Sample]) -> float:
    p50_sec = took(samples, 0.5)
    return 1 / p50_sec if p50_sec else 0.0


def _gains(groups: Sequence[Group], load: Load, value: Any, others: str = "") -> list[float]:
    """By round: the service's value by the best of the others' whose name begins so."""
    found = []
    for number in sorted({one["round"] for one, _ in groups}):
        by_server = {
            one["server"]: value(samples)
            for one, samples in groups
            if (one["load"], one["round"]) == (load.name, number)
        }
        if by_server:
            mine = by_server.pop(servers.SERVICE)
            best = max(one for name, one in by_server.items() if name.startswith(others))
            found.append(mine / best if best else float("inf"))
    return found


def _middle(gains: Sequence[float], least: float) -> tuple[float, float, str, str]:
    return median(gains), least, "×", f"rounds {min(gains):.2f} to {max(gains):.2f}"


def table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Requests a second and median latency of every server for every load, in Markdown."""
    names = list(found[LOADS[0].name])
    rows = [
        [load, *(f"{one[name]['per_sec']:.1f}/s, {1e3 * one[name]['p50_sec']:.1f} ms"
                 for name in names)]
        for load, one in found.items() if load != "exact"
    ]  # fmt: skip
    right = [
        f"{found['exact'][name]['right']} of {found['exact'][name]['requests']}" for name in names
    ]
    return markdown(["load", *names], [*rows, ["exact answers", *right]])
