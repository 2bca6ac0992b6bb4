"""The same request told of somebody else, on another day: words put for others of their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from stages.data.draw import pick
from stages.data.products import Product, name_words

LONGEST_KIND = 4
"""Words of the longest phrase that has a kind."""

_MARKS = ",.!?;:"


def retold(
    rng: Random,
    parts: Sequence[str],
    kinds: Mapping[str, Sequence[str]],
    rate: float,
    catalog: Sequence[Product],
) -> list[str]:
    """A message with phrases of its literal text put for others of their kind.

    Args:
        rng: where choices come from.
        parts: literals and slots in turn, a literal first; slots stay.
        kinds: by a phrase, those that fit wherever it stands.
        rate: share of such phrases that are exchanged.
        catalog: no word of its lines is put in.
    """
    told = list(parts)
    for at in range(0, len(told), 2):
        words = told[at].split(" ")
        new: list[str] = []
        while words:
            size = min(len(words), LONGEST_KIND)
            while size > 1 and " ".join(words[:size]).rstrip(_MARKS) not in kinds:
                size -= 1
            phrase = " ".join(words[:size])
            del words[:size]
            core = phrase.rstrip(_MARKS)
            if core in kinds and rng.random() < rate:
                other = pick(rng, kinds[core])
                if not any(name_words(other) & line.words for line in catalog):
                    phrase = other + phrase[len(core) :]
            new.append(phrase)
        told[at] = " ".join(new)
    return told
