"""Where a model is right and where it is wrong: by slice, by action, by its own confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from stages.intent.metrics import Score, rate
from stages.intent.rows import ACTIONS, Answer, Row

# Shares of the traffic, surest answers first, at which the accuracy is told.
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
CALIBRATION_BINS = 10


def by_slice(rows: Sequence[Row], scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Exact match by every value of every key of the rows' `slice`; rows without one are left out.

    A value that joins several with `+`, as the noise of a message, counts for each of them.

    Returns:
        Key to value to rate, as `intent.metrics.rate` gives it; empty if no row has a slice.
    """
    hits: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row, one in zip(rows, scores, strict=True):
        named = row.extra.get("slice")
        for key, value in named.items() if isinstance(named, dict) else ():
            for part in str(value).lower().split("+"):
                hits[str(key)][part].append(one.exact)
    return {
        key: {value: rate(flags) for value, flags in sorted(values.items())}
        for key, values in hits.items()
    }


def confusion(rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """Rows by the action that was wanted, then by the action that was answered."""
    counts = {wanted: dict.fromkeys(ACTIONS, 0) for wanted in ACTIONS}
    for row, answer in zip(rows, answers, strict=True):
        counts[row.answer.action][answer.action] += 1
    return counts


def coverage(probabilities: Sequence[float], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """What a threshold on the answer's probability buys: the rest could go to a person.

    Returns:
        For each share of the rows, surest first: `share`, the `threshold` that leaves it, and
        `exact`, the rate among the rows answered.
    """
    order = sorted(range(len(scores)), key=lambda at: -probabilities[at])
    points = []
    for share in SHARES:
        kept = order[: max(1, round(share * len(order)))]
        points.append(
            {
                "share": share,
                "threshold": probabilities[kept[-1]],
                "exact": rate(scores[at].exact for at in kept),
            }
        )
    return points


def calibration(probabilities: Sequence[float], scores: Sequence[Score]) -> dict[str, Any]:
    """Whether answers of probability p are right in a share p of cases.

    Returns:
        `bins` of equal width that have rows (`low`, `high`, `mean_probability`, `exact`), and
        `expected_error`, the mean distance of the two weighted by rows.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.
    """
    held: dict[int, list[int]] = defaultdict(list)
    for at, probability in enumerate(probabilities):
        held[min(CALIBRATION_BINS - 1, int(probability * CALIBRATION_BINS))].append(at)
    bins = []
    error = 0.0
    for number, members in sorted(held.items()):
        mean = sum(probabilities[at] for at in members) / len(members)
        exact = rate(scores[at].exact for at in members)
        error += abs(mean - exact["value"]) * len(members) / len(scores)
        bins.append(
            {
                "low": number / CALIBRATION_BINS,
                "high": (number + 1) / CALIBRATION_BINS,
                "mean_probability": mean,
                "exact": exact,
            }
        )
    return {"bins": bins, "expected_error": error}
