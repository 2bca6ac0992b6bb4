"""How people shorten and inflect a product's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from stages.data.draw import pick
from stages.data.names import Names
from stages.data.products import Product, name_words


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
    first, _, rest = family.partition(" ")
    last = family.rsplit(" ", 1)[-1]
    ways += [f"{variant} {last}", f"{first} {variant} {rest}", f"{first} {after}"]
    if rest:
        ways.append(f"{rest} {first}" if rng.random() < 0.5 else first)
    if variant:
        ways += [variant, f"{variant} {after}"]
    if brand and rng.random() < 0.15:
        return brand
    if " " in before:  # "500g pack of ground beef"
        ways += [f"{before} of {named}", f"{before.split(' ')[0]} {family}"]
    return " ".join(pick(rng, ways).split())


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


def spoken(
    rng: Random,
    names: Names,
    target: Product,
    catalog: Sequence[Product],
    many: bool,
    held: bool,
) -> str | None:
    """A product in the shopper's own words.

    Args:
        rng: where choices come from.
        names: the language's.
        target: the line that is meant.
        catalog: the lines it must be told from.
        many: whether several pieces are asked for.
        held: whether the family is not train's: then only taught words stand for it.

    Returns:
        None if the words that were tried are not clear in this catalog.
    """
    nouns = [
        form
        for form in names.families.get(target.family, ())
        if not held or names.taught.issuperset(form.split())
    ]
    sized, varied = names.sizes.get(target.size, ()), names.variants.get(target.variant, ())
    most = _extreme(names, target, catalog)
    for _ in range(3):
        says_variant = bool(target.variant) and rng.random() < 0.6
        says_size = bool(sized) and rng.random() < 0.5
        says_noun = not (says_variant or says_size) or rng.random() < 0.75
        if most and rng.random() < 0.5:
            says_variant, says_size, says_noun = False, False, True
            sized_by = most
        elif _clear(target, catalog, nouns, says_noun, says_variant, says_size, names):
            sized_by = sized if says_size else ()
        else:
            continue
        if says_noun:
            text = pick(rng, nouns) if nouns and rng.random() < 0.8 else target.family.lower()
        else:
            pronouns = names.pronouns_many if many else names.pronouns
            text = pick(rng, pronouns) if pronouns else ""
        if says_variant:
            pattern = pick(rng, varied) if varied and rng.random() < 0.85 else "_"
            text = pattern.replace("_", text, 1) if pattern != "_" else f"{target.variant} {text}"
        if sized_by:
            text = pick(rng, sized_by).replace("_", text, 1)
        return " ".join(text.split())
    return None


def _clear(
    target: Product,
    catalog: Sequence[Product],
    nouns: Sequence[str],
    says_noun: bool,
    says_variant: bool,
    says_size: bool,
    names: Names,
) -> bool:
    """Whether no other line of the catalog has what would be said of the target."""
    noun, variant = name_words(target.family), name_words(target.variant)
    measure = target.size.split(" ")[0]
    spoken_words = [frozenset(form.split()) for form in nouns]

    def fits(line: Product) -> bool:
        if says_noun and not (
            noun <= line.words
            or any(words <= line.words for words in spoken_words)
            or any(form in nouns for form in names.families.get(line.family, ()))
        ):
            return False
        if says_variant and not variant <= line.words:
            return False
        return not says_size or line.size.split(" ")[0] == measure

    return not any(fits(line) for line in catalog if line is not target)


# Sizes in words, smallest first.
_LADDER = (
    ("mini", "small", "regular", "medium", "large", "family"),
    ("XS", "S", "M", "L", "XL", "XXL"),
)
_MEASURE = re.compile(r"(\d+(?:\.\d+)?) ?([a-zA-Z]*)\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_IN_BASE = {"kg": ("g", 1000.0), "L": ("ml", 1000.0), "m": ("cm", 100.0), "TB": ("GB", 1000.0)}


def _extent(size: str) -> tuple[str, float] | None:
    """What a size measures in, and how much."""
    for scale in _LADDER:
        if size in scale:
            return scale[0], float(scale.index(size))
    found = _MEASURE.match(size)
    # "5W-30", "26/6", "2 x 100ml" and "12m+" are names more than measures.
    if not found or len(_NUMBER.findall(size)) > 1 or size.endswith("+"):
        return None
    unit, factor = _IN_BASE.get(found[2], (found[2], 1.0))
    return unit, float(found[1]) * factor


def _extreme(names: Names, target: Product, catalog: Sequence[Product]) -> tuple[str, ...]:
    """Patterns that say "the biggest one" or "the smallest one", where the target is that."""
    line_of = [line for line in catalog if line.family == target.family]
    noun = name_words(target.family)
    if len(line_of) < 2 or any(noun <= line.words for line in catalog if line not in line_of):
        return ()
    extents = [_extent(line.size) for line in line_of]
    own = _extent(target.size)
    others = [one for line, one in zip(line_of, extents, strict=True) if line is not target]
    if own is None or not all(one is not None and one[0] == own[0] for one in others):
        return ()
    amounts = [one[1] for one in others if one is not None]
    if own[1] > max(amounts):
        return names.biggest
    return names.smallest if own[1] < min(amounts) else ()
