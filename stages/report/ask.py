"""Which variant meets given limits: `python -m stages.report.ask --report FILE --max-latency 50ms`.

Of the GGUF variants that meet every limit it takes the one that the report's own rule takes of
them. Where none does, it says which limit is in the way and by how much the nearest misses it, and
ends with 1; wrong input ends with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import CartwrightError
from stages.report import figures
from stages.report.check import read_report
from stages.report.limits import PERCENTILES, Limit, limits_of, miss
from stages.report.recommend import exact_of, listed, recommend
from stages.report.schema import Report, Variant

EXIT_NONE = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the variant and why; returns the exit code."""
    given = _parse(arguments)
    try:
        limits = limits_of(
            given.max_latency, given.percentile, given.max_memory, given.max_size,
            given.min_accuracy,
        )  # fmt: skip
        found = ask(read_report(given.report), limits)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if given.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif found["variant"]:
        print("\n".join([found["sentence"], *found["why"]]))
    if found["variant"] is None:
        print(f"error: {found['sentence']}", file=sys.stderr, flush=True)
        return EXIT_NONE
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.report.ask",
        description="The variant of a report to use within limits, or what is in the way.",
    )
    parser.add_argument("--report", type=Path, required=True, metavar="JSON")
    parser.add_argument("--max-latency", default="", metavar="TIME", help="50ms, 0.2s")
    parser.add_argument("--percentile", default="p50", help=f"of it: {', '.join(PERCENTILES)}")
    parser.add_argument("--max-memory", default="", metavar="SIZE", help="300MB, 1.5GiB")
    parser.add_argument("--max-size", default="", metavar="SIZE", help="of the file")
    parser.add_argument("--min-accuracy", default="", metavar="SHARE", help="0.98 or 98%%")
    parser.add_argument("--json", action="store_true", help="JSON instead of sentences")
    return parser.parse_args(arguments)


def ask(report: Report, limits: Sequence[Limit]) -> dict[str, Any]:
    """The variant to use within limits.

    Returns:
        `variant` and `file` (null if none meets them all), `sentence`, `why` (sentences), and
        `variants`: of each its `name`, whether it `meets` all, and its `misses`, each with
        `limit`, `value`, `over` (in the limit's unit) and `relative`.
    """
    candidates = [one for one in report["variants"] if one["engine"] == "llama.cpp"]
    misses = {one["name"]: [m for limit in limits if (m := miss(limit, one))] for one in candidates}
    fitting = [one for one in candidates if not misses[one["name"]]]
    machine = str(report["host"].get("cpu_model") or "unknown CPU")
    found: dict[str, Any] = {
        "variant": None,
        "file": None,
        "variants": [
            {"name": name, "meets": not missed, "misses": missed} for name, missed in misses.items()
        ],
    }
    if not fitting:
        return found | {"sentence": _in_the_way(candidates, limits, misses, machine), "why": []}
    rule = report["recommendation"]
    chosen = recommend(fitting, rule["max_accuracy_drop"], rule["noise"], machine)
    variant = next(one for one in fitting if one["name"] == chosen["variant"])
    return found | {
        "variant": variant["name"],
        "file": variant["file"],
        "sentence": chosen["sentence"],
        "why": _why(variant, fitting, limits, misses, report),
    }


def _why(
    chosen: Variant,
    fitting: Sequence[Variant],
    limits: Sequence[Limit],
    misses: dict[str, list[dict[str, Any]]],
    report: Report,
) -> list[str]:
    others = [one["name"] for one in fitting if one is not chosen]
    first = f"It meets {listed([limit.told for limit in limits])}" if limits else "No limit given"
    if others:
        drop = figures.points(report["recommendation"]["max_accuracy_drop"])
        first += (
            f", and so {'does' if len(others) == 1 else 'do'} {listed(others)}; of these it is the "
            f"fastest within {drop} of the most accurate, or the smallest of those as fast"
        )
    elif limits:
        first += ", and no other does"
    sentences = [f"{first}."]
    sentences += [
        f"{name} misses {listed([one['told'] for one in missed])}."
        for name, missed in misses.items()
        if missed
    ]
    exact = exact_of(chosen)
    floor = next((limit for limit in limits if limit.option == "--min-accuracy"), None)
    if floor and exact["low"] < floor.bound:
        sentences.append(
            f"Careful: on {exact['n']:,} rows its accuracy is known to {figures.interval(exact)} %,"
            f" which reaches below {figures.percent(floor.bound)}."
        )
    noise = report["noise"]
    if noise and noise["warning"]:
        sentences.append(f"Careful: {noise['warning']}.")
    return sentences


def _in_the_way(
    candidates: Sequence[Variant],
    limits: Sequence[Limit],
    misses: dict[str, list[dict[str, Any]]],
    machine: str,
) -> str:
    """Which limit no variant meets, or that they exclude each other; and the nearest variant."""
    alone = [
        limit
        for limit in limits
        if all(any(one["limit"] == limit.told for one in missed) for missed in misses.values())
    ]
    if alone:
        parts = []
        for limit in alone:
            name, nearest = min(
                (
                    (name, one)
                    for name, missed in misses.items()
                    for one in missed
                    if one["limit"] == limit.told
                ),
                key=lambda pair: pair[1]["relative"],
            )
            parts.append(f"none meets {limit.told}: the nearest, {name}, misses {nearest['told']}")
        return f"of {len(candidates)} variants on {machine} {'; '.join(parts)}"
    name, missed = min(misses.items(), key=lambda pair: max(one["relative"] for one in pair[1]))
    return (
        f"of {len(candidates)} variants on {machine} none meets "
        f"{listed([limit.told for limit in limits])} at once, though each is met by some: the "
        f"nearest, {name}, misses {listed([one['told'] for one in missed])}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
