"""The row format: a catalog, a shopper's message and the JSON answer it should get.

Source: the interchange format of arXiv 2510.21970: JSONL rows with `prompt`, `completion` and
`language`; the completion is `json.dumps` with its default separators, keys in a fixed order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.core.errors import InputError

ACTIONS = ("add", "remove")
MAX_QUANTITY = 9_999
MAX_CATALOG_LINES = 1_000
MAX_LINE_CHARS = 200
MAX_MESSAGE_CHARS = 2_000

_CATALOG_HEAD = "Catalog:\n"
_USER_HEAD = "\n\nUser:\n"
_ANSWER_KEYS = ("action", "product", "quantity")


@dataclass(frozen=True)
class Answer:
    """What the shopper wants done: one action on one catalog line, `quantity` pieces of it."""

    action: str
    product: str
    quantity: int

    def to_json(self) -> str:
        """The one spelling of this answer that models are trained to write."""
        return json.dumps(
            {"action": self.action, "product": self.product, "quantity": self.quantity}
        )


@dataclass(frozen=True)
class Row:
    """One example; `extra` keeps further keys (template, slice) in the order they came."""

    catalog: tuple[str, ...]
    message: str
    answer: Answer
    language: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        return build_prompt(self.catalog, self.message)

    @property
    def completion(self) -> str:
        return self.answer.to_json()

    def to_json(self) -> str:
        """The row as one JSONL line, without the newline; text is not escaped to ASCII."""
        record: dict[str, Any] = {"prompt": self.prompt, "completion": self.completion}
        if self.language is not None:
            record["language"] = self.language
        return json.dumps(record | dict(self.extra), ensure_ascii=False)


def build_prompt(catalog: Sequence[str], message: str) -> str:
    """Joins a catalog and a message into the `prompt` field."""
    lines = "\n".join(catalog)
    return f"{_CATALOG_HEAD}{lines}{_USER_HEAD}{message}"


def split_prompt(prompt: str) -> tuple[tuple[str, ...], str]:
    """Takes a `prompt` field apart into catalog lines and message.

    Raises:
        ValueError: the text is not a catalog, a blank line, `User:` and a message.
    """
    if not prompt.startswith(_CATALOG_HEAD) or _USER_HEAD not in prompt:
        raise ValueError("prompt is not 'Catalog:', its lines, a blank line, 'User:', the message")
    body, message = prompt[len(_CATALOG_HEAD) :].split(_USER_HEAD, 1)
    return tuple(body.split("\n")), message


def validate_catalog(lines: Sequence[str]) -> tuple[str, ...]:
    """Checks that a catalog can be asked about.

    Raises:
        InputError: it is empty or too long, or a line is empty, a duplicate, too long, or holds a
            line break.
    """
    if not lines:
        raise InputError("the catalog is empty: give at least one product line")
    if len(lines) > MAX_CATALOG_LINES:
        raise InputError(
            f"the catalog has {len(lines):,} lines: at most {MAX_CATALOG_LINES:,} are accepted, "
            "send only the products that the shopper can mean"
        )
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line != line.strip():
            raise InputError(f"catalog line {number} is empty or padded with spaces: {line!r}")
        if len(line.splitlines()) != 1 or not line.isprintable():
            raise InputError(f"catalog line {number} holds a line break or control character")
        if len(line) > MAX_LINE_CHARS:
            raise InputError(f"catalog line {number} is longer than {MAX_LINE_CHARS} characters")
        if line in seen:
            raise InputError(f"catalog line {number} is a duplicate: {line!r}")
        seen.add(line)
    return tuple(lines)


def validate_message(message: str) -> str:
    """Checks a shopper's message.

    Raises:
        InputError: it is blank or too long.
    """
    if not message.strip():
        raise InputError("the message is empty: give the shopper's words")
    if len(message) > MAX_MESSAGE_CHARS:
        raise InputError(f"the message is longer than {MAX_MESSAGE_CHARS:,} characters")
    return message


def parse_answer(text: str) -> Answer:
    """Reads an answer from JSON text.

    Raises:
        ValueError: not JSON, not exactly the three keys, or a value out of range; the message says
            which.
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the answer is not JSON ({text[:60]!r})") from error
    if not isinstance(value, dict) or set(value) != set(_ANSWER_KEYS):
        raise ValueError("the answer must be an object with exactly action, product and quantity")
    action, product, quantity = (value[key] for key in _ANSWER_KEYS)
    if action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(ACTIONS)}, not {action!r}")
    if not isinstance(product, str):
        raise ValueError(f"product must be text, not {product!r}")
    if type(quantity) is not int or not 1 <= quantity <= MAX_QUANTITY:
        raise ValueError(
            f"quantity must be a whole number from 1 to {MAX_QUANTITY:,}, not {quantity!r}"
        )
    return Answer(action, product, quantity)


def parse_row(line: str) -> Row:
    """Reads one JSONL line.

    Raises:
        ValueError: what is wrong with the row, in one clause.
    """
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError("the row is not JSON") from error
    if not isinstance(record, dict):
        raise ValueError("the row is not a JSON object")
    for key in ("prompt", "completion"):
        if not isinstance(record.get(key), str):
            raise ValueError(f"the key {key!r} is missing or not text")
    language = record.get("language")
    if language is not None and not isinstance(language, str):
        raise ValueError("the key 'language' is not text")
    catalog, message = split_prompt(record["prompt"])
    answer = parse_answer(record["completion"])
    try:
        validate_catalog(catalog)
        validate_message(message)
    except InputError as error:
        raise ValueError(str(error)) from error
    if answer.product not in catalog:
        raise ValueError(f"the product {answer.product!r} is not in the row's catalog")
    extra = {k: v for k, v in record.items() if k not in ("prompt", "completion", "language")}
    return Row(catalog, message, answer, language, extra)


def iter_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a JSONL file; blank lines are passed over.

    Raises:
        InputError: the file is missing, not UTF-8, or a row is bad (file and line are named).
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield parse_row(line)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: {error}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from error


def read_rows(path: Path) -> list[Row]:
    """All rows of a JSONL file.

    Raises:
        InputError: as `iter_rows`, or the file holds no row.
    """
    rows = list(iter_rows(path))
    if not rows:
        raise InputError(f"{path} holds no rows: a dataset needs at least one")
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSONL, one a line."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(row.to_json() + "\n" for row in rows)
