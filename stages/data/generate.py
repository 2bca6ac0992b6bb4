"""The generator: catalogs, messages and their one right answer, from a seed."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Any

from stages.data.draw import Weighted, pick
from stages.data.grammar import NUMBER_SLOTS, Frame, Language, Wording, load
from stages.data.names import load_names
from stages.data.naming import plural, shorter, spoken
from stages.data.noise import hesitant, mistype, strip_diacritics, strip_marks
from stages.data.products import Product, name_words
from stages.data.rates import USUAL, Rates
from stages.data.shops import Shops
from stages.data.story import retold
from stages.intent.rows import ACTIONS, Answer, Row

# What nobody says: brackets, and marks at the end of a word; "1.5l" and "usb-c" stay.
_UNSPOKEN = re.compile(r"[()¿¡…]|[.,!?;:-]+(?=\s|$)")

DEFAULT_LANGUAGES = ("english", "croatian", "spanish")

# Shares of the forms, in order; they need not sum to 1.
_QUANTITY_FORMS = {
    "digits": 34,
    "word": 20,
    "multiplier": 12,
    "omitted": 20,
    "idiom": 7,
    "corrected": 7,
}
_MENTIONS = {"full": 48, "lower": 13, "no_size": 13, "partial": 13, "noun": 13}
_REGISTERS = {
    "basic": 12,
    "curt": 13,
    "plain": 25,
    "polite": 15,
    "chatty": 17,
    "indirect": 11,
    "question": 17,
}

_FORM, _MENTION = Weighted(_QUANTITY_FORMS), Weighted(_MENTIONS)
# Drawing among forms that spell a quantity out.
_EXPLICIT = Weighted({k: v for k, v in _QUANTITY_FORMS.items() if k != "omitted"})
_ALONE = Weighted({"digits": 45, "word": 35, "idiom": 8, "corrected": 12})
_FIGURES: dict[str, Callable[[float], int]] = {
    "order": lambda at: 1000 + int(at * 9000),
    "hour": lambda at: 5 + int(at * 7),
    "price": lambda at: 10 * int(at * 10) + 5 + int(at * 50) % 5,
    "day": lambda at: 1 + int(at * 28),
    "age": lambda at: 20 + 5 * int(at * 13),
    "house": lambda at: 1 + int(at * 120),
    "people": lambda at: 5 + int(at * 16),
    "year": lambda at: 10 + int(at * 15),
    "minutes": lambda at: 5 * (1 + int(at * 11)),
}
_QUANTITIES = Weighted(
    {
        str(n): w
        for n, w in zip(range(1, 13), (12, 18, 16, 12, 10, 8, 5, 5, 4, 6, 2, 5), strict=True)
    }
    | {"tail": 14, "hundreds": 3}
)


def generate(
    seed: int,
    split: str,
    count: int,
    languages: Sequence[str] = DEFAULT_LANGUAGES,
    catalog_lines: tuple[int, int] = (2, 40),
    rates: Rates = USUAL,
) -> Iterator[Row]:
    """Yields rows of a split; the same arguments give the same rows.

    Messages use frames, and products families, of this split alone: train never sees what
    validation and test hold. Languages take turns.

    Args:
        seed: of everything that is drawn.
        split: `train`, `validation` or `test`.
        count: how many rows.
        languages: language files of this stage.
        catalog_lines: fewest and most lines of a catalog.
        rates: how often messages do what people do.
    """
    rng = Random(f"{seed}:{split}")
    shops = Shops(split, catalog_lines, rates.near_miss_rate)
    writers = [Writer(load(name), split, rates) for name in languages]
    for index in range(count):
        catalog, target, near_miss = shops.draw(rng)
        yield writers[index % len(writers)].write(rng, catalog, target, near_miss)


class Writer:
    """Writes messages of one language and split."""

    def __init__(self, language: Language, split: str, rates: Rates) -> None:
        self._language = language
        self._rates = rates
        self._names = load_names(language.name)
        self._held = split != "train"
        self._frames = {}
        for action in ACTIONS:
            groups = language.frames[split][action]
            sums = tuple(accumulate(_REGISTERS[group[0].register] for group in groups))
            self._frames[action] = (groups, sums)

    def write(
        self, rng: Random, catalog: Sequence[Product], target: Product, near_miss: bool
    ) -> Row:
        """A message about `target` and its answer."""
        random, language = rng.random, self._language
        action = ACTIONS[random() < 0.45]
        frame, wording = self._wording(rng, action)
        slots = wording[1::2]

        form, quantity = self._quantity(rng, slots)
        mention, kind = self.mention(rng, catalog, target, quantity)
        values = {"p": mention, **self._figures(rng, slots)}
        if "x" in slots:
            values["x"] = self._thing(rng, catalog)
        if "o" in slots:
            values["o"] = self._other(rng, catalog, target)
        if "qp" in slots or "qx" in slots:
            values["qp"] = values["qx"] = self._phrase(rng, form, quantity, mention)
        if "q" in slots:
            values["q"] = self._amount(rng, form, quantity)

        transcript = random() < self._rates.transcript_rate
        parts = self._around(rng, action, wording, catalog)
        if transcript:
            parts = self._around(rng, action, tuple(parts), catalog)
        parts = retold(rng, parts, language.kinds, self._rates.swap_rate, catalog)
        if transcript:
            text, faults = self._heard(rng, parts, values), "transcript"
            kind = "heard" if kind in ("full", "lower") else kind
        else:
            text, faults = self._spell(rng, parts, values)
        slice_: dict[str, Any] = {
            "register": frame.register,
            "quantity_form": form,
            "mention": kind,
            "noise": faults,
            "near_miss": near_miss,
        }
        return Row(
            tuple(line.name for line in catalog),
            text,
            Answer(action, target.name, quantity),
            language.name,
            {"template": frame.id, "slice": slice_},
        )

    def _wording(self, rng: Random, action: str) -> tuple[Frame, Wording]:
        groups, sums = self._frames[action]
        frame = pick(rng, groups[bisect(sums, rng.random() * sums[-1])])
        return frame, pick(rng, frame.wordings)

    def _quantity(self, rng: Random, slots: Sequence[str]) -> tuple[str, int]:
        """How the quantity is given, and the quantity."""
        if "q" in slots:
            form = _ALONE.draw(rng)
        elif "qp" in slots:
            form = _FORM.draw(rng)
        elif "qx" in slots:
            form = _EXPLICIT.draw(rng)
        else:
            form = "omitted"
        if form == "omitted":
            return form, 1
        if form == "idiom":
            table = self._language.idioms_alone if "q" in slots else self._language.idioms
            return form, pick(rng, tuple(table))
        drawn = _QUANTITIES.draw(rng)
        if drawn == "tail":
            quantity = 13 + int(rng.random() * 88)
        elif drawn == "hundreds":
            quantity = 101 + int(rng.random() * 899)
        else:
            quantity = int(drawn)
        # No words beyond a hundred; "1 units" and "x1" are rare in life.
        if (quantity > 100 and form == "word") or (quantity == 1 and form == "multiplier"):
            form = "digits"
        return form, quantity

    def _number(self, rng: Random, quantity: int, as_word: bool) -> str:
        if as_word and quantity in self._language.numbers:
            return pick(rng, self._language.numbers[quantity])
        return str(quantity)

    def _corrected(self, rng: Random, quantity: int) -> str:
        wrong = quantity
        while wrong == quantity:
            wrong = max(2, quantity + int(rng.random() * 7) - 3)
        as_word = rng.random() < 0.5
        values = {
            "a": self._number(rng, wrong, as_word),
            "b": self._number(rng, quantity, as_word),
        }
        return _fill(pick(rng, self._language.corrections), values)

    def _amount(self, rng: Random, form: str, quantity: int) -> str:
        if form == "corrected":
            return self._corrected(rng, quantity)
        if form == "idiom":
            return pick(rng, self._language.idioms_alone[quantity])
        if rng.random() < 0.12:  # "three bags"
            number = self._number(rng, quantity, form == "word")
            return f"{number} {self._container(rng, quantity)}"
        if form == "word":
            return pick(rng, self._language.numbers_alone[quantity])
        return str(quantity)

    def _container(self, rng: Random, quantity: int) -> str:
        language = self._language
        return pick(rng, language.containers if quantity == 1 else language.containers_many)

    def _phrase(self, rng: Random, form: str, quantity: int, mention: str) -> str:
        language = self._language
        if form == "corrected":
            return f"{self._corrected(rng, quantity)} {mention}"
        if form == "idiom":
            number = pick(rng, language.idioms[quantity])
        else:
            if quantity == 1 and form in ("word", "digits"):
                form = f"one_{form}"
            number = self._number(rng, quantity, form.endswith("word"))
        values = {"n": number, "p": mention, "c": self._container(rng, quantity)}
        return _fill(pick(rng, language.phrases[form]), values)

    def _thing(self, rng: Random, catalog: Sequence[Product]) -> str:
        """A noun that names no line of the catalog."""
        while True:
            thing = pick(rng, self._language.things)
            if not any(name_words(thing) & line.words for line in catalog):
                return thing

    def _other(self, rng: Random, catalog: Sequence[Product], target: Product) -> str:
        """Another line of the catalog, its nearest ones first, as the shopper writes it."""
        others = [line for line in catalog if line is not target]
        near = [line for line in others if line.family == target.family]
        other = pick(rng, near if near and rng.random() < 0.6 else others)
        return self.mention(rng, catalog, other, quantity=1)[0]

    def _figures(self, rng: Random, slots: Sequence[str]) -> dict[str, str]:
        """Values of the slots for numbers that are no quantity.

        None is 1 to 4, or ends in it, where a noun follows: Croatian counts "85 eura" but "82 eura"
        and "81 euro".
        """
        random = rng.random
        values = {}
        for slot in slots:
            if slot == "few":
                values[slot] = self._number(rng, 5 + int(random() * 8), random() < 0.5)
            elif slot in NUMBER_SLOTS:
                values[slot] = str(_FIGURES[slot](random()))
        return values

    def _sentence(self, rng: Random, wording: Wording, catalog: Sequence[Product]) -> str:
        """A reason or an aside, its slots filled."""
        slots = wording[1::2]
        values = self._figures(rng, slots)
        if "x" in slots:
            values["x"] = self._thing(rng, catalog)
        return _fill(wording, values)

    def mention(
        self, rng: Random, catalog: Sequence[Product], target: Product, quantity: int
    ) -> tuple[str, str]:
        """The product's name as the shopper writes it, clear in this catalog, and its form."""
        text = target.name
        kind = "spoken" if rng.random() < self._rates.spoken_rate else _MENTION.draw(rng)
        if kind == "spoken":
            said = spoken(rng, self._names, target, catalog, quantity > 1, self._held)
            if said is not None:
                return said, kind
            kind = _MENTION.draw(rng)
        if kind == "lower":
            text = text.lower()
        elif kind != "full":
            text = shorter(rng, kind, target)
            words = name_words(text) - {"of"}
            if any(words <= line.words for line in catalog if line is not target):
                kind, text = "full", target.name
            else:
                if rng.random() < 0.7:
                    text = text.lower()
                text = self._inflected(rng, text, target, quantity)
        if rng.random() < self._rates.misspelt_rate:
            keep = frozenset().union(*(line.words for line in catalog))
            slipped = mistype(text, rng, keep)
            if slipped != text:
                return slipped, "misspelt"
        return text, kind

    def talk(self, rng: Random, mention: str) -> str:
        """The mention between the beginning of one request and the end of another: no sense."""
        before, after = (self._wording(rng, pick(rng, ACTIONS))[1] for _ in range(2))
        return f"{before[0]}{mention}{after[-1]}"

    def _inflected(self, rng: Random, text: str, product: Product, quantity: int) -> str:
        """A mention with its noun in the plural or another form, where the noun ends it."""
        language = self._language
        if not text.lower().endswith(product.family.lower()):
            return text
        if language.plurals and quantity > 1 and product.plural and rng.random() < 0.7:
            return plural(text)
        if language.endings and text[-1] not in "aeiousy" and rng.random() < 0.3:
            return text + pick(rng, language.endings)
        return text

    def _around(
        self, rng: Random, action: str, wording: Wording, catalog: Sequence[Product]
    ) -> list[str]:
        """The whole message as literals and slots in turn: greeting, reason, request, thanks."""
        random, language = rng.random, self._language
        parts = list(wording)
        question = parts[-1].endswith("?")
        if random() < self._rates.aside_rate:
            asides = language.asides["add" if action == "add" and random() < 0.4 else "any"]
            aside = self._sentence(rng, pick(rng, asides), catalog)
            end = parts[-1][-1:] if parts[-1][-1:] in tuple("?!.") else ""
            parts[-1] = f"{parts[-1].removesuffix(end)} {aside}{end}"
        opener = pick(rng, language.openers) if random() < self._rates.greeting_rate else ""
        mark = (", ", "! ", " ", ", ")[int(random() * 4)]
        if random() < self._rates.reason_rate:
            reason = self._sentence(
                rng, pick(rng, language.reasons["any" if random() < 0.5 else action]), catalog
            )
            loud = reason[0].upper() + reason[1:]
            if random() < 0.5:
                first = reason if opener and mark != "! " else loud
                parts[0] = first + (". " if random() < 0.8 else ", ") + parts[0]
            elif question or random() < 0.5:
                parts[-1] += (" " if question else ". ") + loud
            else:
                parts[-1] += ", " + reason
            question = parts[-1].endswith("?")
        if opener:
            parts[0] = opener + mark + parts[0]
        if random() < self._rates.thanks_rate:
            end = (". ", ", ", "! ", " ")[int(random() * 4)]
            parts[-1] += (" " if question else end) + pick(rng, language.closers)
            parts[-1] += "!" if random() < 0.4 else ""
        elif not question and random() < 0.45:
            parts[-1] += "." if random() < 0.85 else "!"
        return parts

    def _heard(self, rng: Random, parts: list[str], values: dict[str, str]) -> str:
        """Fills the slots and writes the message as a speech recognizer would."""
        for _ in range(1 + int(rng.random() * 3)):
            at = 2 * int(rng.random() * ((len(parts) + 1) // 2))
            parts[at] = hesitant(rng, parts[at], pick(rng, self._language.fillers), at == 0)
        said = (values[part] if at % 2 else part for at, part in enumerate(parts))
        return " ".join(_UNSPOKEN.sub(" ", "".join(said)).lower().split())

    def _spell(self, rng: Random, parts: list[str], values: dict[str, str]) -> tuple[str, str]:
        """Fills the slots and applies the noise; returns the message and the faults' names."""
        random, rates = rng.random, self._rates
        faults = []
        if random() < rates.typo_rate:
            before = parts[::2]
            for _ in range(1 + (random() < 0.25)):
                at = 2 * int(random() * len(before))
                parts[at] = mistype(parts[at], rng)
            if parts[::2] != before:
                faults.append("typo")
        if random() < rates.filler_rate:
            at = 2 * int(random() * ((len(parts) + 1) // 2))
            parts[at] = hesitant(rng, parts[at], pick(rng, self._language.fillers), at == 0)
            faults.append("filler")
        if random() < rates.no_punctuation_rate:
            bare = [strip_marks(part) for part in parts[::2]]
            if bare != parts[::2]:
                faults.append("no_punctuation")
                parts[::2] = bare
        lower = random() < rates.lower_rate
        if lower and random() < 0.5:
            parts[::2] = [part.lower() for part in parts[::2]]
        pieces = parts[:]
        for at in range(1, len(parts), 2):
            pieces[at] = values[parts[at]]
        text = "".join(pieces).strip()
        if random() < rates.no_diacritics_rate:
            plain = strip_diacritics(text)
            if plain != text:
                faults.append("no_diacritics")
                text = plain
        if not lower:
            first = 1 if text[0] in "¿¡" and len(text) > 1 else 0
            text = text[:first] + text[first].upper() + text[first + 1 :]
        if random() < rates.shout_rate:
            faults.append("shout")
            text = text.upper()
        return text, "+".join(faults) or "none"


def _fill(wording: Wording, values: dict[str, str]) -> str:
    return "".join(values[part] if at % 2 else part for at, part in enumerate(wording))
