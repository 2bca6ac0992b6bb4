"""What shoppers call the goods: the names files, and that what is said is clear in the catalog."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import yaml

import stages.data.names
from stages.data.generate import generate
from stages.data.grammar import SLOTS, load
from stages.data.names import Names, load_names
from stages.data.naming import spoken
from stages.data.products import SPLITS, Product, compose, name_words, shop_range
from stages.data.rates import Rates
from stages.data.story import LONGEST_KIND, retold

FOLDER = Path(stages.data.names.__file__).with_name("names")
LANGUAGES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def _known(key: str) -> set[str]:
    products = (p for s in SPLITS for family in shop_range(s).products for p in family)
    return {str(getattr(product, key)) for product in products}


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_of_goods_that_there_are(language: str) -> None:
    raw = yaml.safe_load((FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
    assert set(raw["families"]) <= _known("family")
    # A variant that repeats its noun, or a size drawn for no family, is in no product.
    written = yaml.safe_load(FOLDER.with_name("products.yaml").read_text(encoding="utf-8"))
    assert set(raw["variants"]) <= {v for group in written for v in group["variants"]}
    assert set(raw["sizes"]) <= {str(s) for group in written for s in group["sizes"]}
    names = load_names(language)
    patterns = [
        p for table in (names.variants, names.sizes) for forms in table.values() for p in forms
    ]
    assert all(p.count("_") == 1 for p in [*patterns, *names.biggest, *names.smallest])
    forms = Counter(form for forms in names.families.values() for form in set(forms))
    assert [form for form, count in forms.items() if count > 1] == []
    assert len(names.families) > 700 and len(names.variants) > 250 and len(names.sizes) > 250


@pytest.mark.parametrize("language", LANGUAGES)
def test_asides_have_slots_that_there_are(language: str) -> None:
    kinds = load(language).asides
    assert set(kinds) == {"any", "add"} and min(map(len, kinds.values())) >= 50
    asides = [aside for texts in kinds.values() for aside in texts]
    assert {slot for aside in asides for slot in aside[1::2]} <= set(SLOTS) - {
        "p",
        "qp",
        "qx",
        "q",
        "o",
    }


def _product(variant: str, family: str, size: str, brand: str = "") -> Product:
    name = compose(brand, variant, family, size)
    return Product(name, family, brand, variant, size, True, "any", name_words(name))


NAMES = Names(
    families={"Milk": ("mlijeko",), "Oat Milk": ("zobeno mlijeko",)},
    variants={"Whole": ("punomasno _",)},
    sizes={"1L": ("_ od litre",), "500ml": ("_ od pola litre",)},
    biggest=("najveće _",),
    smallest=("najmanje _",),
    pronouns=("ono",),
    pronouns_many=("onih",),
)


def _said(target: Product, *others: Product, names: Names = NAMES) -> set[str | None]:
    rng = Random(4)
    catalog = [target, *others]
    return {spoken(rng, names, target, catalog, many=False, held=False) for _ in range(300)}


def test_alone_in_the_catalog_everything_is_clear() -> None:
    said = _said(_product("Whole", "Milk", "1L"), _product("", "Bread", ""))
    assert {"mlijeko", "punomasno mlijeko", "punomasno mlijeko od litre", "ono od litre"} <= said
    assert "punomasno ono" in said and None not in said


def test_what_a_neighbour_shares_is_not_enough() -> None:
    said = _said(_product("Whole", "Milk", "1L"), _product("Whole", "Milk", "500ml"))
    assert {"mlijeko", "punomasno mlijeko", "punomasno ono", "milk"}.isdisjoint(said)
    assert {"mlijeko od litre", "ono od litre", "najveće mlijeko"} <= said
    assert "najmanje mlijeko" not in said


def test_twins_but_for_the_brand_have_no_clear_name() -> None:
    assert _said(_product("", "Milk", "1L", "Aba"), _product("", "Milk", "1L", "Uvu")) == {None}


def test_a_name_that_holds_another_is_not_taken_for_it() -> None:
    said = _said(_product("", "Milk", "1L"), _product("", "Oat Milk", "1L"))
    # "milk" is in "Oat Milk"; the size is alike.
    assert said == {None}


def test_the_biggest_is_said_of_sizes_that_can_be_compared() -> None:
    oils = replace(NAMES, families={})
    large, pack = _product("", "Milk", "large"), _product("", "Milk", "6-pack")
    assert not {"najveće mlijeko", "najveće milk"} & _said(large, pack)
    oil = [_product("", "Oil", size) for size in ("5W-30 1L", "75W-90 1L", "12m+", "2m")]
    assert not {"najveće oil", "najmanje oil"} & _said(*oil[:2], names=oils)
    assert not {"najveće oil", "najmanje oil"} & _said(*oil[2:], names=oils)
    small = _product("", "Milk", "small")
    assert "najveće mlijeko" in _said(large, small)
    assert "najmanje mlijeko" in _said(small, large)


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_families_are_called_by_words_that_train_has_heard(language: str) -> None:
    names = load_names(language)

    def untaught(held: bool) -> set[str]:
        """Words for held-out goods that no name of train's goods has."""
        rng, words = Random(6), set[str]()
        for family in shop_range("test").products:
            forms = names.families.get(family[0].family, ())
            for _ in range(20):
                said = spoken(rng, names, family[0], family[:1], many=False, held=held)
                heard = set((said or "").split())
                for form in forms:
                    if heard >= set(form.split()):
                        words |= set(form.split()) - names.taught - family[0].words
        return words

    assert untaught(held=False)
    assert not untaught(held=True)


def test_spoken_names_can_be_switched_off() -> None:
    rows = generate(3, "train", 300, rates=Rates(spoken_rate=0))
    assert "spoken" not in {row.extra["slice"]["mention"] for row in rows}


@pytest.mark.parametrize("language", LANGUAGES)
def test_kinds_are_phrases_without_a_number_each_of_one_kind(language: str) -> None:
    loaded = load(language)
    numbers = {text for n in range(2, 101) for text in loaded.numbers[n] if " " not in text}
    members = [phrase for kind in set(loaded.kinds.values()) for phrase in kind]
    assert len(members) == len(set(members)) == len(loaded.kinds)
    for phrase in members:
        assert 1 <= len(phrase.split(" ")) <= LONGEST_KIND
        assert not numbers & set(phrase.lower().split()), phrase
        assert not re.search(r"\d", phrase)


def test_stories_are_told_of_others_and_the_request_stays() -> None:
    kinds = load("english").kinds
    told = ["my sister says we need ", "qp", " on Friday, please."]
    heard = [retold(Random(seed), told, kinds, 1.0, []) for seed in range(20)]
    for who, slot, when in heard:
        assert who.removesuffix(" says we need ") in kinds["my sister"]
        assert slot == "qp" and when.startswith(" ") and when.endswith(".")
        assert when.split(",")[0].strip() in kinds["on Friday"]
    assert len({who for who, _, _ in heard}) > 5
    assert retold(Random(1), told, kinds, 0.0, []) == told
