"""The gate between adapter and merged model.

They never answer wholly alike: the adapter stands on NF4 weights, the merged model on those in full
precision. What must not happen is that merging costs accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.core.errors import StageFailed
from stages.intent.rows import Answer, Row

FIELDS = ("action", "product", "quantity")
_NAMED_ROWS = 5


def compare(
    rows: Sequence[Row], before: Sequence[Answer], after: Sequence[Answer]
) -> dict[str, Any]:
    """Holds a merged model's answers (`after`) against its adapter's (`before`).

    Returns:
        `rows`, `agreement` (field to share), `drop` (the adapter's exact match less the merged
        model's) and `different` (row number from 1, both answers, the right one).
    """
    pairs = list(zip(before, after, strict=True))
    agreement = {
        name: sum(getattr(a, name) == getattr(b, name) for a, b in pairs) / len(rows)
        for name in FIELDS
    }
    different = [
        {"row": number, "adapter": a.to_json(), "merged": b.to_json(), "expected": row.completion}
        for number, (row, (a, b)) in enumerate(zip(rows, pairs, strict=True), 1)
        if a != b
    ]
    lost = sum(
        (a == row.answer) - (b == row.answer) for row, (a, b) in zip(rows, pairs, strict=True)
    )
    return {
        "rows": len(rows),
        "agreement": agreement,
        "drop": lost / len(rows),
        "different": different,
    }


def hold(found: dict[str, Any], max_drop: float, file: str) -> None:
    """Raises `StageFailed`, naming rows, where merging cost more exact match than is accepted."""
    if found["drop"] > max_drop + 1e-9:
        lost = [one["row"] for one in found["different"] if one["adapter"] == one["expected"]]
        numbers = ", ".join(f"{file}:{row}" for row in lost[:_NAMED_ROWS])
        raise StageFailed(
            f"parity: the merged model answers {found['drop']:.1%} fewer of {found['rows']} rows "
            f"exactly than its adapter, more than max_drop {max_drop:.1%} (see {numbers}); train "
            "longer or with a lower learning_rate"
        )
