"""What people call the goods: synonyms, other languages, sizes spelled out; a data file a language.

A language without a file in `names/` calls everything by the catalog's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from stages.data.products import shop_range

_Forms = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Names:
    """What a names file says.

    Attributes:
        families: other words for a noun.
        variants: patterns of a variant, in which `_` stands for the noun.
        sizes: patterns of a size, spelled out.
        biggest: patterns of the largest among lines that differ in size.
        smallest: the same for the smallest.
        pronouns: what stands for the noun when only the variant or the size is said; may be empty.
        pronouns_many: the same for several pieces.
        taught: words that occur in names of train's families: held-out families are called by no
            other, for nobody could know them.
    """

    families: _Forms = field(default_factory=dict)
    variants: _Forms = field(default_factory=dict)
    sizes: _Forms = field(default_factory=dict)
    biggest: tuple[str, ...] = ()
    smallest: tuple[str, ...] = ()
    pronouns: tuple[str, ...] = ()
    pronouns_many: tuple[str, ...] = ()
    taught: frozenset[str] = frozenset()


@cache
def load_names(language: str) -> Names:
    """Reads a language's names file; empty names if there is none."""
    path = Path(__file__).with_name("names") / f"{language}.yaml"
    if not path.is_file():
        return Names()
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    tables = {
        key: {str(name): tuple(forms.split("|")) for name, forms in raw[key].items()}
        for key in ("families", "variants", "sizes")
    }
    lists = {
        key: tuple(part.strip() for part in raw[key].split("|"))
        for key in ("biggest", "smallest", "pronouns", "pronouns_many")
    }
    own = shop_range("train").families
    forms = (form for family in own for form in tables["families"].get(family, ()))
    return Names(
        **tables, **lists, taught=frozenset(word for form in forms for word in form.split())
    )
