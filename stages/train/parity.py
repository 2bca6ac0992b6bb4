"""The gate between adapter and merged model: the same prompts must get the same answers."""

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
    """Per-field agreement of two models' answers, and which rows differ.

    Returns:
        `rows`, `agreement` (field to share) and `different` (row number from 1, both answers).
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
    return {"rows": len(rows), "agreement": agreement, "different": different}


def hold(found: dict[str, Any], threshold: float, file: str) -> None:
    """Raises `StageFailed`, naming rows, where a field agrees less often than the threshold."""
    for name, share in found["agreement"].items():
        if share < threshold:
            numbers = ", ".join(f"{file}:{one['row']}" for one in found["different"][:_NAMED_ROWS])
            raise StageFailed(
                f"parity: adapter and merged model agree on {name} in {share:.1%} of "
                f"{found['rows']} rows, below parity_threshold {threshold:.1%} (see {numbers}); "
                "train longer or with a lower learning_rate"
            )
