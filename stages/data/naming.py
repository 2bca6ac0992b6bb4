"""How people shorten and inflect a product's name."""

from __future__ import annotations

from random import Random

from stages.data.draw import pick
from stages.data.products import Product


def shorter(rng: Random, kind: str, product: Product) -> str:
    """A product's name as people cut it: `no_size`, `noun` or `partial`."""
    variant, family, brand, size = product.variant, product.family, product.brand, product.size
    named = f"{variant} {family}".strip()
    if kind == "no_size":
        return f"{brand} {named}".strip()
    if kind == "noun":
        # "the speaker" for a Bluetooth Speaker
        return family if rng.random() < 0.7 else family.rsplit(" ", 1)[-1]
    # partial: what tells it from its neighbours, in the orders people say it
    after = f"({size})" if _counts(size) else size  # "tea 20 bags" would ask for twenty
    before = "" if _counts(size) else size
    ways = [
        named,
        named,
        f"{brand} {family}",
        f"{family} {after}",
        f"{named} {after}",
        f"{before} {family}",
        f"{before} {named}",
        f"{family} {variant}",
    ]
    if brand and rng.random() < 0.15:
        return brand
    if " " in before:  # "500g pack of ground beef"
        ways += [f"{before} of {named}", f"{before.split(' ')[0]} {family}"]
    return pick(rng, ways).strip()


def _counts(size: str) -> bool:
    """Whether a size has a bare number, which could be read as a quantity."""
    return any(word.strip("+").isdigit() or word == "one" for word in size.split(" "))


def plural(text: str) -> str:
    """The English plural of a name that ends in its noun."""
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return text + "es"
    if text.endswith("fe"):
        return text[:-2] + "ves"
    if text.endswith("f") and not text.endswith("ff"):
        return text[:-1] + "ves"
    if text[-1] == "y" and text[-2] not in "aeiou":
        return text[:-1] + "ies"
    return text + "s"
