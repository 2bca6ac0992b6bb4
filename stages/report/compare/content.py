"""From two reports to their differences.

Exact match: the interval of a difference of two rates by Newcombe's method, from both Wilson
intervals. It takes the rows for independent, so on the same rows it is wider than it need be.
Latency: where both timed the same rows, their medians differ by noise alone, and the ratio's
interval is 2.5 times the larger A/A difference of the two runs, at least 2 %; else the ends of both
medians' 95 % intervals. Memory: two runs of one file differ by up to 2 %.

Two medians of one file are apart by a difference whose mean is 1.13 standard deviations and of
which 95 % are below 2.77: hence the 2.5.

Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions",
Statistics in Medicine 17 (1998), method 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stages.core.errors import InputError
from stages.report import figures, markdown
from stages.report.compare.schema import SCHEMA_VERSION, Comparison, Difference, Median, Pair, Side
from stages.report.measured import Rate
from stages.report.recommend import MEMORY_NOISE, exact_of, listed
from stages.report.schema import Report, Requests, Variant

_HOST_KEYS = ("cpu_model", "usable_cores", "memory_limit_bytes", "kernel_backend", "machine")
_ROW_KEYS = ("dataset", "rows", "seed")
_TIMED_KEYS = ("latency_rows", "rounds")
_NOISE_FACTOR = 2.5
_LEAST_NOISE = 0.02


def compare(reports: Sequence[Report], labels: Sequence[str]) -> Comparison:
    """Holds the second report against the first.

    Args:
        reports: The two.
        labels: What to call them; made different if they are alike.

    Raises:
        InputError: They have no variant in common.
    """
    first, second = ({one["name"]: one for one in report["variants"]} for report in reports)
    names = [name for name in first if name in second]
    if not names:
        raise InputError(
            f"nothing to compare: {labels[0]} has {listed(list(first))}, {labels[1]} has "
            f"{listed(list(second))}, and no variant is in both"
        )
    noise = max(_LEAST_NOISE, _NOISE_FACTOR * max(_noise(report) for report in reports))
    told = [f"{one} ({mark})" for one, mark in zip(labels, "AB", strict=True)]
    sides = [
        _side(report, label)
        for report, label in zip(reports, told if labels[0] == labels[1] else labels, strict=True)
    ]
    same_rows = _same_rows(reports, sides)
    one, two = (_values(report["settings"], _TIMED_KEYS) for report in reports)
    paired = same_rows is True and one == two
    pairs = [_pair(first[name], second[name], noise if paired else None) for name in names]
    found: Comparison = {
        "schema": SCHEMA_VERSION,
        "sentences": [],
        "sides": sides,
        "same_host": _values(reports[0]["host"], _HOST_KEYS)
        == _values(reports[1]["host"], _HOST_KEYS),
        "same_rows": same_rows,
        "latency_by": "noise" if paired else "intervals",
        "pairs": pairs,
        "only": [sorted(first.keys() - second.keys()), sorted(second.keys() - first.keys())],
    }
    found["sentences"] = _sentences(found, noise)
    return found


def _values(record: Any, keys: Sequence[str]) -> list[Any]:
    return [record.get(key) for key in keys]


def _noise(report: Report) -> float:
    return report["noise"]["relative"] if report["noise"] else 0.0


def _side(report: Report, label: str) -> Side:
    data = next((step for step in report["lineage"] if step["stage"] == "data"), None)
    noise = report["noise"]
    return {
        "label": label,
        "profile": report["profile"],
        "recommended": report["recommendation"]["variant"],
        "sentence": report["recommendation"]["sentence"],
        "data_sha256": data["content_sha256"] if data else None,
        "noise": _noise(report),
        "noise_warning": noise["warning"] if noise else None,
        "host": [[name, value] for name, value in markdown.host_rows(report)],
    }


def _same_rows(reports: Sequence[Report], sides: Sequence[Side]) -> bool | None:
    one, two = (_values(report["settings"], _ROW_KEYS) for report in reports)
    if one != two:
        return False
    hashes = [side["data_sha256"] for side in sides]
    if None in hashes:
        # A sample that ships with the image is the same everywhere; a user's own file may not be.
        return True if one[0] == "built-in sample" else None
    return hashes[0] == hashes[1]


def _pair(first: Variant, second: Variant, noise: float | None) -> Pair:
    rates = [exact_of(first), exact_of(second)]
    known = first["sha256"] is not None and second["sha256"] is not None
    return {
        "name": first["name"],
        "same_file": first["sha256"] == second["sha256"] if known else None,
        "exact": difference_of_rates(*rates),
        "latency": ratio_of_medians(first["latency_sec"], second["latency_sec"], noise),
        "memory": _change(first["peak_rss_bytes"], second["peak_rss_bytes"], MEMORY_NOISE),
        "size": _change(first["size_bytes"], second["size_bytes"], 0.0),
        "exact_rates": rates,
        "latency_sec": [_median(one["latency_sec"]) for one in (first, second)],
    }


def _median(latency: Requests) -> Median:
    return {"p50": latency["p50"], "low": latency["p50_low"], "high": latency["p50_high"]}


def difference_of_rates(first: Rate, second: Rate) -> Difference:
    """The second rate less the first, with its 95 % interval."""
    change = second["value"] - first["value"]
    low = change - math.hypot(second["value"] - second["low"], first["high"] - first["value"])
    high = change + math.hypot(second["high"] - second["value"], first["value"] - first["low"])
    return {
        "first": first["value"],
        "second": second["value"],
        "change": change,
        "low": low,
        "high": high,
        "differs": not low <= 0 <= high,
    }


def ratio_of_medians(first: Requests, second: Requests, noise: float | None) -> Difference:
    """The second median over the first, less one, with its interval.

    Args:
        first: The first side's requests.
        second: The second's.
        noise: What the ratio may be off by, both ways; None for the ends of the medians' intervals.
    """
    ratio = second["p50"] / first["p50"]
    if noise is None:
        low = second["p50_low"] / first["p50_high"] - 1
        high = second["p50_high"] / first["p50_low"] - 1
    else:
        low, high = ratio / (1 + noise) - 1, ratio * (1 + noise) - 1
    return {
        "first": first["p50"],
        "second": second["p50"],
        "change": ratio - 1,
        "low": low,
        "high": high,
        "differs": not low <= 0 <= high,
    }


def _change(first: float, second: float, tolerance: float) -> Difference:
    change = second / first - 1
    return {
        "first": first,
        "second": second,
        "change": change,
        "low": None,
        "high": None,
        "differs": abs(change) > tolerance,
    }


def _sentences(found: Comparison, noise: float) -> list[str]:
    """What is different and what is not, in the order in which a reader asks."""
    first, second = (side["label"] for side in found["sides"])
    count = len(found["pairs"])
    sentences = [
        f"{second} against {first}, {count} {'variant' if count == 1 else 'variants'} that both "
        "have.",
        _told(found, "exact", "exact match", _points),
        _told(found, "latency", "median latency", _percent),
        _told(found, "memory", "peak memory", _percent),
    ]
    if not found["same_host"]:
        sentences.append(
            "The two were measured on different machines: latency and memory say what the machines "
            "do, not what changed in the model."
        )
    if found["same_rows"] is False:
        sentences.append("They answered different rows: exact match compares the rows as well.")
    for side in found["sides"]:
        if side["noise_warning"]:
            sentences.append(f"Careful, {side['label']}: {side['noise_warning']}.")
    by = (
        f"2.5 times the noise, {figures.percent(noise)}"
        if found["latency_by"] == "noise"
        else "their medians' intervals, since the timed rows differ or may"
    )
    sentences.append(
        "Exact match differs where the 95 % interval excludes none: one in twenty does by chance. "
        f"Latencies are held to {by}; memory to {figures.percent(MEMORY_NOISE, 0)}."
    )
    return sentences


def _points(difference: Difference) -> str:
    sign = "−" if difference["change"] < 0 else "+"
    return f"{sign}{figures.points(difference['change'])}"


def _percent(difference: Difference) -> str:
    return figures.change(difference["change"])


def _told(found: Comparison, key: str, title: str, spell: Any) -> str:
    differing = [one for one in found["pairs"] if one[key]["differs"]]  # type: ignore[literal-required]
    alike = [one["name"] for one in found["pairs"] if one not in differing]
    title = title[0].upper() + title[1:]
    if not differing:
        return f"{title}: no difference beyond the noise, for any."
    changed = listed([f"{one['name']} {spell(one[key])}" for one in differing])  # type: ignore[literal-required]
    rest = f"; within the noise: {listed(alike)}" if alike else "; nothing is within the noise"
    return f"{title} differs: {changed}{rest}."
