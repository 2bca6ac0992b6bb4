"""What a shopper wants, drawn by us; the model only puts it into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from stages.core.errors import InputError
from stages.data.shops import Shops
from stages.intent.rows import ACTIONS, MAX_CATALOG_LINES, Answer, validate_catalog

CATALOG_LINES = (5, 20)
MAX_MESSAGE_CHARS = 300
NEAR_MISS_RATE = 0.3
REGISTERS = {
    "terse": "as few words as a phone allows, no greeting",
    "polite": "polite, with a greeting or thanks",
    "chatty": "a sentence of small talk about the day before or after the request",
    "slang": "colloquial, as to a friend, all lower case",
    "hasty": "typed in haste, with a typing mistake or two and little punctuation",
    "question": "as a question",
    "detour": "first says what it is for, then what to do",
}
NAMINGS = {
    "full": "exactly as the catalog line has it",
    "short": "shortened as people say it, but so that no other catalog line could be meant",
    "own": "in the shopper's own language and words where it has some, brands as they are",
}
NUMBERS = {"digits": "written in digits", "words": "written out as a word"}

SYSTEM = (
    "You write the messages that shoppers type to a shop's assistant. You are given a catalog and "
    "what one shopper wants. Write that shopper's message and nothing else, as a real person types "
    "it: it changes the cart by exactly what is asked, no other product and no other number. Never "
    "write JSON or field names into the message, never list the catalog, never explain. Reply with "
    'a JSON object that has one key, "message".'
)
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    # Bounded, or a weak model goes on until it has no tokens left.
    "properties": {"message": {"type": "string", "maxLength": MAX_MESSAGE_CHARS}},
    "required": ["message"],
    "additionalProperties": False,
}
_ACTION_WORDS = {"add": "put into the cart", "remove": "take out of the cart"}


@dataclass(frozen=True)
class Wish:
    """One request to be put into words.

    Attributes:
        register: a key of `REGISTERS`.
        naming: a key of `NAMINGS`.
        number: a key of `NUMBERS`.
    """

    catalog: tuple[str, ...]
    answer: Answer
    language: str
    register: str
    naming: str
    number: str

    @property
    def prompt(self) -> str:
        """What the model is told about this request."""
        lines = "\n".join(self.catalog)
        number = NUMBERS[self.number]
        if self.answer.quantity == 1:
            number = f"left unsaid, or {number}"
        return (
            f"Catalog:\n{lines}\n\n"
            f"The shopper wants to {_ACTION_WORDS[self.answer.action]}: "
            f"{self.answer.quantity} × {self.answer.product}\n"
            f"Language: {self.language}\n"
            f"Style: {REGISTERS[self.register]}\n"
            f"The product is named {NAMINGS[self.naming]}.\n"
            f"The number is {number}."
        )

    @property
    def messages(self) -> list[dict[str, str]]:
        """The chat that asks for it."""
        return [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": self.prompt},
        ]


class Wishes:
    """Draws wishes; the same number gives the same one.

    Args:
        languages: names, as a model knows them.
        catalogs: the shops' own lines; empty for catalogs of the data stage's training shops.
        seed: of every draw.
    """

    def __init__(
        self, languages: Sequence[str], catalogs: Sequence[Sequence[str]], seed: int
    ) -> None:
        self._languages = languages
        self._catalogs = catalogs
        self._seed = seed
        self._shops = Shops("train", CATALOG_LINES, NEAR_MISS_RATE)

    def draw(self, index: int) -> Wish:
        """The wish of a row."""
        rng = Random(f"{self._seed}:collect:{index}")
        catalog, product = self._catalog(rng)
        return Wish(
            catalog=catalog,
            answer=Answer(rng.choice(ACTIONS), product, _quantity(rng)),
            language=self._languages[index % len(self._languages)],
            register=rng.choice(list(REGISTERS)),
            naming=rng.choice(list(NAMINGS)),
            number=rng.choice(list(NUMBERS)),
        )

    def _catalog(self, rng: Random) -> tuple[tuple[str, ...], str]:
        if not self._catalogs:
            products, target, _ = self._shops.draw(rng)
            return tuple(product.name for product in products), target.name
        lines = rng.choice(self._catalogs)
        fewest, most = CATALOG_LINES
        count = min(len(lines), rng.randint(fewest, most))
        shown = tuple(rng.sample(list(lines), count))
        return shown, rng.choice(shown)


def _quantity(rng: Random) -> int:
    """Few pieces far more often than many."""
    [most] = rng.choices((1, 6, 12, 60), weights=(35, 45, 15, 5))
    return rng.randint(1, most)


def read_catalog(path: Path) -> tuple[str, ...]:
    """A shop's lines from a text file, one product a line; blank and repeated ones are dropped.

    Raises:
        InputError: the file cannot be read, holds fewer than two lines, or one that no catalog may.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start})") from None
    lines = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(lines) < 2:
        raise InputError(f"{path.name} holds {len(lines)} products: a catalog needs at least two")
    for start in range(0, len(lines), MAX_CATALOG_LINES):
        try:
            validate_catalog(lines[start : start + MAX_CATALOG_LINES])
        except InputError as error:
            raise InputError(f"{path.name}: {error}") from None
    return lines
