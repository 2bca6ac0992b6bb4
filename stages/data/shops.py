"""Catalogs: which lines a shop shows, and the one that the message will be about."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from stages.data.draw import pick
from stages.data.products import STYLES, Product, Range, restyle, shop_range

# Of 100 catalogs, how many write their lines otherwise than `Whole Milk (1L)`.
RESTYLED_PERCENT = 50


class Shops:
    """Draws catalogs: lines of a few departments, with deliberate near-misses."""

    def __init__(self, split: str, catalog_lines: tuple[int, int], near_miss_rate: float) -> None:
        self._own = shop_range(split)
        # Held-out families are few: what else is in their shops is train's, the target never is.
        self._others: list[Range] = [self._own]
        if split != "train":
            self._others.append(shop_range("train"))
        self._fewest, self._most = catalog_lines
        self._near_miss_rate = near_miss_rate

    def draw(self, rng: Random) -> tuple[list[Product], Product, bool]:
        """A catalog, the product that the message will be about, and whether it has a double."""
        random = rng.random
        # Few lines more often than many: the mean is a third of the way up.
        lines = self._fewest + int(random() ** 2 * (self._most - self._fewest + 1))
        own = self._own.products
        target = _one(rng, pick(rng, own))
        chosen = {target.name: target}
        near_miss = random() < self._near_miss_rate
        if near_miss:
            family = own[self._own.families.index(target.family)]
            siblings = 1 + int(random() * 3)
            for _ in range(20):
                if len(chosen) > siblings or len(chosen) >= lines:
                    break
                other = _one(rng, family)
                same = (other.variant == target.variant) + (other.size == target.size)
                if same + (other.brand == target.brand) >= 2 or random() < 0.1:
                    chosen[other.name] = other
        while len(chosen) < lines:
            shelf = pick(rng, pick(rng, self._others).products)
            if shelf[0].family == target.family and not near_miss:
                continue
            product = _one(rng, shelf)
            chosen[product.name] = product
            if random() < 0.25 and len(chosen) < lines:
                product = _one(rng, shelf)
                chosen[product.name] = product
        if random() * 100 < RESTYLED_PERCENT:
            style = pick(rng, STYLES[1:])
            restyled = {line.name: restyle(line, style) for line in chosen.values()}
            # Two lines may read alike in another style: a "Large Bowl" and a "Bowl (large)".
            if len({line.name for line in restyled.values()}) == len(chosen):
                target, chosen = restyled[target.name], restyled
        catalog = list(chosen.values())
        rng.shuffle(catalog)
        return catalog, target, near_miss


def _one(rng: Random, family: Sequence[Product]) -> Product:
    """A product of a family, those of no brand, which come first, more often."""
    return family[int(rng.random() ** 2 * len(family))]
