"""Limits as a user writes them: `50ms`, `300MB`, `0.98`; and by how much a variant misses one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stages.core.errors import InputError
from stages.report import figures
from stages.report.recommend import exact_of
from stages.report.schema import Variant

PERCENTILES = ("p50", "p90", "p99")
_TIMES_SEC = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_SIZES_BYTES = {
    **{"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
}


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        option: As it was given.
        bound: Largest allowed value, or smallest if `is_floor`; seconds, bytes or a share.
        told: For sentences: `--max-latency 50 ms`.
        spell: A difference from the bound, for sentences.
        value: What a variant has.
        is_floor: Whether less is the miss.
    """

    option: str
    bound: float
    told: str
    spell: Callable[[float], str]
    value: Callable[[Variant], float]
    is_floor: bool = False


def limits_of(
    max_latency: str, percentile: str, max_memory: str, max_size: str, min_accuracy: str
) -> list[Limit]:
    """The limits that were given; those that are empty were not.

    Raises:
        InputError: One is no number of a known unit.
    """
    if percentile not in PERCENTILES:
        raise InputError(f"--percentile must be one of {', '.join(PERCENTILES)}, not {percentile}")
    found = []
    if max_latency:
        bound = _with_unit("--max-latency", max_latency, _TIMES_SEC)
        told = f"--max-latency {figures.seconds(bound)} ({percentile})"
        found.append(
            Limit(
                "--max-latency", bound, told, figures.seconds,
                lambda one: one["latency_sec"][percentile],  # type: ignore[literal-required]
            )
        )  # fmt: skip
    sizes: tuple[tuple[str, str, Callable[[Variant], float]], ...] = (
        ("--max-memory", max_memory, lambda one: one["peak_rss_bytes"]),
        ("--max-size", max_size, lambda one: one["size_bytes"]),
    )
    for option, text, value in sizes:
        if text:
            bound = _with_unit(option, text, _SIZES_BYTES)
            told = f"{option} {figures.size(bound)}"
            found.append(Limit(option, bound, told, figures.size, value))
    if min_accuracy:
        bound = _share(min_accuracy)
        told = f"--min-accuracy {figures.percent(bound)}"
        found.append(
            Limit(
                "--min-accuracy", bound, told, figures.points,
                lambda one: exact_of(one)["value"], is_floor=True,
            )
        )  # fmt: skip
    return found


def miss(limit: Limit, variant: Variant) -> dict[str, Any] | None:
    """By how much a variant misses a limit; None if it meets it.

    Returns:
        `limit`, `value`, `over` (how far beyond, in seconds, bytes or a share), `relative` (to the
        bound) and `told`, a part of a sentence.
    """
    value = limit.value(variant)
    over = limit.bound - value if limit.is_floor else value - limit.bound
    if over <= 0:
        return None
    spelled = figures.percent(value) if limit.is_floor else limit.spell(value)
    return {
        "limit": limit.told,
        "value": value,
        "over": over,
        "relative": over / limit.bound,
        "told": f"{limit.told} by {limit.spell(over)} (it has {spelled})",
    }


def _with_unit(option: str, text: str, units: dict[str, Any]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)", text.strip())
    if match is None or match[2] not in units or float(match[1]) == 0:
        raise InputError(
            f"{option} {text}: must be a number above 0 with a unit, one of {', '.join(units)}"
        )
    return float(match[1]) * float(units[match[2]])


def _share(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value <= 1:
        raise InputError(
            f"--min-accuracy {text}: must be a share above 0 and up to 1, as 0.98, or percent, "
            "as 98%"
        )
    return value
