"""Scoring: what an answer got right, and the rates over a dataset with their intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stages.intent.rows import Row, parse_answer

FIELDS = ("exact", "action", "product", "quantity")


@dataclass(frozen=True)
class Score:
    """One answer against its row; a text that is no valid answer is wrong in every field."""

    valid: bool
    in_catalog: bool
    action: bool
    product: bool
    quantity: bool

    @property
    def exact(self) -> bool:
        return self.action and self.product and self.quantity


def score(row: Row, text: str) -> Score:
    """Scores a model's text for a row."""
    try:
        answer = parse_answer(text)
    except ValueError:
        return Score(valid=False, in_catalog=False, action=False, product=False, quantity=False)
    return Score(
        valid=True,
        in_catalog=answer.product in row.catalog,
        action=answer.action == row.answer.action,
        product=answer.product == row.answer.product,
        quantity=answer.quantity == row.answer.quantity,
    )


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a rate; `z` is the normal quantile (two-sided 95 % by default).

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927).
    """
    if trials == 0:
        return (0.0, 1.0)
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    # Rounding must not put the rate itself outside.
    return (
        min(rate, max(0.0, (centre - spread) / scale)),
        max(rate, min(1.0, (centre + spread) / scale)),
    )


def rate(hits: Iterable[bool]) -> dict[str, float | int]:
    """A rate over trials: `value`, the 95 % interval `low` to `high`, and `n`."""
    flags = list(hits)
    low, high = wilson(sum(flags), len(flags))
    value = sum(flags) / len(flags) if flags else 0.0
    return {"value": value, "low": low, "high": high, "n": len(flags)}


def summarize(rows: Sequence[Row], scores: Sequence[Score]) -> dict[str, Any]:
    """Rates per field, counts of unusable answers, and exact match by language.

    Returns:
        `exact`, `action`, `product`, `quantity` (each as `rate` gives it), `invalid_json` and
        `invented_products` (counts), `by_language` (name to the exact-match rate).
    """
    languages: dict[str, list[bool]] = defaultdict(list)
    for row, one in zip(rows, scores, strict=True):
        languages[row.language or "unknown"].append(one.exact)
    return {
        **{name: rate(getattr(one, name) for one in scores) for name in FIELDS},
        "invalid_json": sum(not one.valid for one in scores),
        "invented_products": sum(one.valid and not one.in_catalog for one in scores),
        "by_language": {name: rate(flags) for name, flags in sorted(languages.items())},
    }
