"""Renames the goods of a text with words that nobody has seen, so that names must be copied.

A model that reads the same few hundred nouns a million times learns to know them, and fails on a
noun that it does not know. Here each word of a shop's product names becomes a random string of
tokenizer pieces, the same one wherever the text says the word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

_CATALOG = re.compile(r"Catalog:\n(.*?)\n\n", re.DOTALL)
_CUE = re.compile(r"\n\n[^\n]+:\n\Z")
_NAME_WORD = re.compile(r"\b[^\W\d_a-z][^\W\d_]+")
_WORD = re.compile(r"[^\W\d_]+")
_MOST_PIECES = 3
# Words of the answers' notations and of the prompt's frame are no names, whatever is for sale.
_KEPT = frozenset(
    ("add", "remove", "action", "product", "quantity", "item", "count", "intent", "user", "find")
)


def disguise(parts: Sequence[str], pieces: Sequence[str], rng: Random) -> Sequence[str]:
    """A text with the capitalized words of its catalog renamed throughout.

    Args:
        parts: what is given and what answers it, in turn; without a catalog they stay as they are.
        pieces: lower-case letter strings that new words are made of.
        rng: decides the words.
    """
    catalog = _CATALOG.match(parts[0])
    if catalog is None:
        return parts
    names: dict[str, str] = {}
    for word in _NAME_WORD.findall(catalog[1]):
        if word.lower() not in names and word.lower() not in _KEPT:
            count = 1 + int(rng.random() * _MOST_PIECES)
            names[word.lower()] = "".join(rng.choices(pieces, k=count))

    def renamed(match: re.Match[str]) -> str:
        word = match[0]
        name = names.get(word.lower())
        if name is None and word.endswith("s"):
            singular = names.get(word[:-1].lower())
            name = singular and singular + "s"
        if name is None:
            return word
        return name.capitalize() if word[0].isupper() else name

    def part(at: int, text: str) -> str:
        # The head and the cue are no part of the shop.
        start = catalog.start(1) if at == 0 else 0
        cue = _CUE.search(text) if at % 2 == 0 else None
        end = cue.start() if cue else len(text)
        return text[:start] + _WORD.sub(renamed, text[start:end]) + text[end:]

    return [part(at, text) for at, text in enumerate(parts)]


def letter_pieces(pieces: Sequence[str]) -> list[str]:
    """The pieces of a vocabulary that are two to six letters, lower-cased, each once."""
    words = (piece.removeprefix("▁").lower() for piece in pieces)
    return sorted({word for word in words if word.isalpha() and 2 <= len(word) <= 6})
