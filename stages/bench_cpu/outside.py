"""The same rows, answered by a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.intent.metrics import score, summarize
from stages.intent.rows import ACTIONS, MAX_QUANTITY, Row
from stages.runtime.endpoint import Endpoint, ask_all

CONCURRENCY = 8
INSTRUCTION = (
    "You are given a shop's catalog and a shopper's message. Say how the message changes the cart: "
    'reply with a JSON object with exactly the keys "action" ("add" or "remove"), "product" (one '
    'line of the catalog, verbatim) and "quantity" (a whole number from 1; 1 if the shopper says '
    "none). The message may be in any language, with mistakes and small talk. Write nothing else."
)


def baseline(endpoint: Endpoint, rows: Sequence[Row]) -> dict[str, Any]:
    """How the endpoint's model does on rows.

    Returns:
        As `intent.metrics.summarize`, and `structured`: whether the server held the answers to a
        schema whose products are the row's catalog.

    Raises:
        InputError: the endpoint refuses a request.
        StageFailed: it does not answer.
    """
    replies = ask_all(
        endpoint,
        [_messages(row) for row in rows],
        [_schema(row) for row in rows],
        concurrency=CONCURRENCY,
    )
    scores = [score(row, reply.text) for row, reply in zip(rows, replies, strict=True)]
    return {**summarize(rows, scores), "structured": endpoint.structured}


def _messages(row: Row) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": row.prompt},
    ]


def _schema(row: Row) -> Mapping[str, Any]:
    return {
        "type": "object",
        "properties": {
            "action": {"type": "string", "enum": list(ACTIONS)},
            "product": {"type": "string", "enum": list(row.catalog)},
            "quantity": {"type": "integer", "minimum": 1, "maximum": MAX_QUANTITY},
        },
        "required": ["action", "product", "quantity"],
        "additionalProperties": False,
    }
