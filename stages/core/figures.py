"""Percentiles of raw samples, and what two measurements of one thing say about the noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

NOISY = 0.1


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the samples lies, between neighbours interpolated.

    Args:
        values: samples in any order, at least one.
        share: from 0 to 1.
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def latency(seconds: Sequence[float]) -> dict[str, float | int]:
    """`p50`, `p90`, `p99`, `mean` in seconds and `n`."""
    return {
        "p50": percentile(seconds, 0.5),
        "p90": percentile(seconds, 0.9),
        "p99": percentile(seconds, 0.99),
        "mean": statistics.fmean(seconds),
        "n": len(seconds),
    }


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of what the samples are drawn from lies, with 95 % confidence.

    The bounds are two of the samples, whose ranks the binomial distribution gives; no shape of the
    distribution is supposed.

    Source: G. J. Hahn, W. Q. Meeker, "Statistical intervals", 1991, section 5.2, normal ranks.
    """
    ordered, count = sorted(values), len(values)
    spread = 1.959964 * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - spread) - 1)
    high = min(count - 1, math.ceil(count / 2 + spread))
    return ordered[low], ordered[high]


def noise(
    name: str, first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """What the same model, measured as if it were two, says about this machine.

    Args:
        name: the variant.
        first: seconds by round, of one process.
        second: the same of the other, on the same requests.
    """
    p50 = [percentile([s for part in rounds for s in part], 0.5) for rounds in (first, second)]
    relative = abs(p50[0] - p50[1]) / min(p50)
    # Of one round, since another may have other requests.
    rounds = [[percentile(part, 0.5) for part in pair] for pair in zip(first, second, strict=True)]
    spread = max(max(pair) / min(pair) for pair in rounds) - 1
    warning = None
    if relative > NOISY or spread > 3 * NOISY:
        warning = (
            f"this machine is too noisy to rank variants that are close: two runs of {name} "
            f"differ by {relative:.0%}, and by up to {spread:.0%} within a round"
        )
    return {
        "variant": name,
        "p50_sec": p50,
        "relative": relative,
        "round_spread": spread,
        "warning": warning,
    }
