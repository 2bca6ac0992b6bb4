"""The goods of the generated shops: catalog lines of brand, variant, noun and size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

SPLITS = ("train", "validation", "test")
# Products kept of one family; with some 1,900 families that is a range of 190,000 products.
PER_FAMILY = 100
BRANDS_PER_SPLIT = {"train": 400, "validation": 60, "test": 60}

# fmt: off
_ONSETS = [
    "b", "br", "c", "cr", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "kl", "l", "m", "n", "p",
    "pr", "qu", "r", "s", "sk", "st", "t", "tr", "v", "w", "z", "zh", "th", "sh",
]
# fmt: on
_VOWELS = ["a", "a", "e", "e", "i", "i", "o", "o", "u", "ia", "ea", "io", "y"]
# fmt: off
_CODAS = [
    "", "", "", "", "", "", "",  # mostly open syllables
    "l", "n", "r", "s", "x", "nt", "rk", "ll", "m", "th", "nd", "ck",
]
# fmt: on


@dataclass(frozen=True, slots=True)
class Product:
    """One thing for sale.

    Attributes:
        name: the catalog line.
        family: the noun; families, not products, are dealt to the splits.
        words: lower-cased words of the name, parentheses dropped: a shorter mention is clear if
            its words are in no other line's.
        size: the text in parentheses, empty for none.
        plural: whether an English plural of the noun makes sense.
    """

    name: str
    family: str
    brand: str
    variant: str
    size: str
    plural: bool
    department: str
    words: frozenset[str]


@dataclass(frozen=True)
class Range:
    """The goods of one split, by family: parallel tuples."""

    families: tuple[str, ...]
    products: tuple[tuple[Product, ...], ...]


def split_of(text: str, held_percent: int = 20) -> str:
    """The split a text belongs to, for ever: its hash deals it.

    Args:
        text: what is dealt: a frame's id, a family, a brand.
        held_percent: share that is not train's; validation and test get half of it each.
    """
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 200
    return ("test", "validation")[bucket % 2] if bucket < 2 * held_percent else "train"


_PUNCTUATION = str.maketrans("", "", "(),")


def name_words(name: str) -> frozenset[str]:
    """Lower-cased words of a catalog line, without the punctuation that sets the size off."""
    return frozenset(name.lower().replace(" - ", " ").translate(_PUNCTUATION).split())


@cache
def shop_range(split: str) -> Range:
    """Every product whose family and brand belong to a split."""
    groups: list[dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_name("products.yaml").read_text(encoding="utf-8")
    )
    marks = brands(split)
    families: list[str] = []
    products: list[tuple[Product, ...]] = []
    for group in groups:
        for noun in group["nouns"]:
            if split_of(f"family:{noun}") == split:
                families.append(noun)
                products.append(_family(noun, group, marks))
    return Range(tuple(families), tuple(products))


@cache
def brands(split: str) -> tuple[str, ...]:
    """Invented brand names of a split; no name is in two splits."""
    rng = Random(20251021)
    wanted = BRANDS_PER_SPLIT[split]
    found: dict[str, None] = {}
    while len(found) < wanted:
        name = invented_name(rng)
        if split_of(f"brand:{name}") == split:
            found[name] = None
    return tuple(found)


def invented_name(rng: Random) -> str:
    """A word that looks like a brand and is none that we know of."""
    syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((2, 2, 3)))]
    return ("".join(syllables) + rng.choice(_CODAS)).capitalize()


STYLES = ("parentheses", "front", "comma", "dash", "bare", "behind", "behind_bare", "apart")
"""How a shop writes a line: `Whole Milk (1L)`, `Large Veggie Pizza`, `Whole Milk, 1L`,
`Whole Milk - 1L`, `Whole Milk 1L`, `Hoodie Black (L)`, `Hoodie Black L`, `Hoodie - Black (L)`."""


def compose(brand: str, variant: str, noun: str, size: str, style: str = "parentheses") -> str:
    """The catalog line of a product."""
    if variant and style in ("behind", "behind_bare", "apart"):
        noun, variant = f"{noun}{' - ' if style == 'apart' else ' '}{variant}", ""
    words = " ".join(part for part in (brand, variant, noun) if part)
    if not size:
        return words
    if style == "front" and size.isalpha():
        return f"{size.capitalize() if size.islower() else size} {words}"
    patterns = {"comma": f"{words}, {size}", "dash": f"{words} - {size}"}
    patterns |= dict.fromkeys(("bare", "behind_bare"), f"{words} {size}")
    return patterns.get(style, f"{words} ({size})")


def restyle(product: Product, style: str) -> Product:
    """The product as a shop of another style writes it."""
    name = compose(product.brand, product.variant, product.family, product.size, style)
    return replace(product, name=name, words=name_words(name))


def _family(noun: str, group: dict[str, Any], marks: Sequence[str]) -> tuple[Product, ...]:
    rng = Random(f"family:{noun}")
    sizes = [str(size) for size in group["sizes"]]
    # A variant that repeats a word of the noun ("Mint" tea called "Mint Tea") says nothing.
    own = name_words(noun)
    variants = [""] + [v for v in group["variants"] if not name_words(v) & own]
    has_size = rng.random() < 0.85
    found: dict[str, Product] = {}
    plain = [("", variant, size) for variant in variants for size in (sizes if has_size else [""])]
    while len(found) < PER_FAMILY:
        if plain:
            brand, variant, size = plain.pop()
        else:
            brand, variant = rng.choice(marks), rng.choice(variants)
            size = rng.choice(sizes) if has_size else ""
        name = compose(brand, variant, noun, size)
        found[name] = Product(
            name, noun, brand, variant, size, bool(group.get("plural")), group["department"],
            name_words(name),
        )  # fmt: skip
    return tuple(found.values())
