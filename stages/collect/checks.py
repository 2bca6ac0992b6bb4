"""Whether what a model wrote can be a row."""

from __future__ import annotations

import json
import re
import unicodedata

from stages.collect.wishes import MAX_MESSAGE_CHARS, Wish
from stages.data.leaks import normalize
from stages.intent.rows import Row, parse_row

# So many catalog lines in a message are a list, not a request.
LISTED_LINES = 3
# Fewer of the prompt's words in a row may be a shopper's own: "3 butter".
COPIED_WORDS = 5
_FIELD_NAME = re.compile(r"\b(quantity|action|product|catalog|message|user)\s*\"?:", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])\d+(?![\w]|[.,]\d)")


def row_of(wish: Wish, text: str, source: str) -> Row:
    """The row that a model's reply makes.

    Args:
        wish: what it was asked to say.
        text: the reply, JSON with one key `message`.
        source: where the row is from, kept in it.

    Raises:
        ValueError: why it makes none, in one clause without the text itself.
    """
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("the reply is not JSON") from None
    message = reply.get("message") if isinstance(reply, dict) else None
    if not isinstance(message, str):
        raise ValueError("the reply has no text `message`")
    message = " ".join(message.split())
    _check(wish, message)
    row = Row(
        catalog=wish.catalog,
        message=message,
        answer=wish.answer,
        language=wish.language,
        extra={
            "source": source,
            "slice": {"register": wish.register, "naming": wish.naming, "number": wish.number},
        },
    )
    return parse_row(row.to_json())


def _check(wish: Wish, message: str) -> None:
    """Raises ValueError for a message that no shopper would have written for this wish."""
    if not any(letter.isalpha() for letter in message):
        raise ValueError("the message is empty or has no letter")
    if len(message) > MAX_MESSAGE_CHARS:
        raise ValueError(f"the message is longer than {MAX_MESSAGE_CHARS} characters")
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") for letter in message):
        raise ValueError("the message holds characters that are no text")
    if "{" in message or "}" in message or _FIELD_NAME.search(message):
        raise ValueError("the message holds JSON or field names")
    plain = normalize(message)
    copied = plain in normalize(wish.prompt) and len(plain.split()) >= COPIED_WORDS
    if copied or plain in map(normalize, wish.catalog):
        raise ValueError("the message is a copy of the prompt")
    if sum(line in message for line in wish.catalog) >= LISTED_LINES:
        raise ValueError("the message lists the catalog")
    # Numbers of the catalog's own lines, sizes above all, say nothing about how many.
    sizes = {number for line in wish.catalog for number in re.findall(r"\d+", line)}
    said = {int(number) for number in set(_NUMBER.findall(message)) - sizes}
    if said and wish.answer.quantity not in said:
        raise ValueError("the message says another number than was asked for")
