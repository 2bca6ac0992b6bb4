"""Drawing at random, the fast way: a generator draws some fifty times a row."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import TypeVar

T = TypeVar("T")


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of the items, each as likely; several times faster than `Random.choice`."""
    return items[int(rng.random() * len(items))]


class Weighted:
    """Draws a key of a table of weights, which need not sum to anything."""

    def __init__(self, table: dict[str, int]) -> None:
        self._keys = tuple(table)
        self._sums = tuple(accumulate(table.values()))

    def draw(self, rng: Random) -> str:
        return self._keys[bisect(self._sums, rng.random() * self._sums[-1])]
