"""What thumbs, keyboards and tongues do to a message: slips, dropped marks, hesitation."""

from __future__ import annotations

from random import Random

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    key: "".join(row[i] for i in (at - 1, at + 1) if 0 <= i < len(row))
    for row in _ROWS
    for at, key in enumerate(row)
}
# Shorter words stay whole: one slip could turn them into another word.
MIN_TYPO_LETTERS = 4

_PLAIN = str.maketrans(
    "áéíóúüñčćšžđäößàèêâçÁÉÍÓÚÜÑČĆŠŽĐÄÖÀÈÊÂÇ", "aeiouunccszdaosaeeacAEIOUUNCCSZDAOAEEAC"
)
_MARKS = str.maketrans("", "", ".,!?¿¡;…")


def strip_diacritics(text: str) -> str:
    """The text as typed on a keyboard without the language's letters; keeps every length."""
    return text.translate(_PLAIN)


def strip_marks(text: str) -> str:
    """The text without sentence punctuation; for literal text only, it would spoil "1.5L"."""
    return text.translate(_MARKS)


def typo(word: str, rng: Random) -> str:
    """The word with one slip in it: a letter dropped, doubled, swapped or hit beside."""
    # The first letter stays: people proof-read beginnings, and "stavi" must not become "tavi".
    at = 1 + int(rng.random() * (len(word) - 2))
    kind = int(rng.random() * 4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    near = _NEIGHBOURS.get(word[at])
    if near is None:
        return word[:at] + word[at + 1 :]
    return word[:at] + near[int(rng.random() * len(near))] + word[at + 1 :]


def mistype(text: str, rng: Random, keep: frozenset[str] = frozenset()) -> str:
    """One slip in one word of a text; unchanged when no word is long enough.

    Args:
        text: words apart by single spaces.
        rng: where the slip comes from.
        keep: lower-cased words that a slip must not produce.
    """
    words = text.split(" ")
    start = int(rng.random() * len(words))
    for offset in range(len(words)):
        at = (start + offset) % len(words)
        if len(words[at]) >= MIN_TYPO_LETTERS and words[at].isalpha():
            slipped = typo(words[at], rng)
            if slipped.lower() in keep:
                return text
            words[at] = slipped
            return " ".join(words)
    return text


def hesitant(rng: Random, text: str, filler: str, first: bool) -> str:
    """A literal between slots with a filler between two of its words, or before the first."""
    words = text.split(" ")
    # An empty word at an end is the space before or after a slot.
    start = 0 if first else 1
    words.insert(start + int(rng.random() * (len(words) - start)), filler)
    return " ".join(words)
