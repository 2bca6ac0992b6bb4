"""What makes two messages one request, and the check that no split asks what another asks.

Two messages are alike when they say the same but for case, accents and punctuation, or when their
skeletons are: the words that are left once the row's product and all numbers are masked, compared
by their runs of five characters. So "the same request with another product or number" is found,
and so is one with a slip or a greeting more.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path

from stages.core.errors import InputError, StageFailed
from stages.data.grammar import LANGUAGES, load
from stages.intent.rows import Row, parse_row

# Jaccard similarity of two skeletons' shingles from which they are alike. It finds seven in ten of
# the messages that differ in one slip. Generated splits, whose frames differ, stay below it: 900
# held-out rows come to 0.48 to 0.70 at most with 3,000 of train, the median to 0.2 (four seeds,
# three languages); of 4,500 beside 100,000 five reach it, and the stage draws others for them.
MIN_SIMILARITY = 0.8
# Shorter skeletons ("add _ please") are what everybody says: only equal messages count there.
MIN_SKELETON_LETTERS = 20
SHINGLE_CHARS = 5
# Leaks named in the error; more would bury the first.
NAMED_LEAKS = 5
# Evaluation messages of this project, never to be trained on.
PEOPLE = Path(__file__).with_name("people")

_MASK = "_"
_NOT_WORD = re.compile(r"[^\w]+")
# Letters that a form of a product's word shares with it ("tomatoes", "tomato").
_STEM_LETTERS = 4


def template(row: Row) -> str | None:
    """The template that a row names; rows of people name none."""
    name = row.extra.get("template")
    return name if isinstance(name, str) else None


def normalize(message: str) -> str:
    """A message without case, accents, punctuation and spacing."""
    plain = unicodedata.normalize("NFKD", message.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return _NOT_WORD.sub(" ", plain).strip()


def skeleton(row: Row) -> str | None:
    """A row's normalized message with one mask for each run of numbers and words of its product.

    Returns:
        The skeleton; None where fewer than `MIN_SKELETON_LETTERS` are left.
    """
    product = normalize(row.answer.product).split()
    stems = {word[:_STEM_LETTERS] for word in product if len(word) >= _STEM_LETTERS}
    masked = {*product, *_number_words()}
    kept: list[str] = []
    for word in normalize(row.message).split():
        if word not in masked and word[:_STEM_LETTERS] not in stems and word.isalpha():
            kept.append(word)
        elif not kept or kept[-1] != _MASK:
            kept.append(_MASK)
    letters = sum(len(word) for word in kept if word != _MASK)
    return " ".join(kept) if letters >= MIN_SKELETON_LETTERS else None


@cache
def _number_words() -> frozenset[str]:
    """Numbers of one word in every language of this stage: an imported row may not name its own."""
    languages = [load(name) for name in LANGUAGES]
    spellings = (
        spelling
        for language in languages
        for numbers in (language.numbers, language.numbers_alone)
        for number in numbers.values()
        for spelling in number
    )
    return frozenset(word for word in map(normalize, spellings) if " " not in word)


class Alike:
    """Finds which of many skeletons are alike, exactly and without comparing all of them.

    Two sets that share enough share one of each one's rarest members, so only these are indexed.

    Source: prefix filtering, Chaudhuri, Ganti, Kaushik, "A Primitive Operator for Similarity Joins
    in Data Cleaning", ICDE 2006.
    """

    def __init__(self, skeletons: Sequence[str]) -> None:
        self._skeletons = skeletons
        self._counts = Counter(one for text in skeletons for one in _shingles(text))
        self._index: dict[str, list[tuple[int, int]]] = {}
        for at, text in enumerate(skeletons):
            shingles = _shingles(text)
            for one in self._rarest(shingles):
                self._index.setdefault(one, []).append((len(shingles), at))

    def find(self, skeleton: str, before: int | None = None) -> Iterator[int]:
        """The positions of the skeletons that are alike, an equal one among them.

        Args:
            skeleton: what to find.
            before: only positions before this one.
        """
        shingles = _shingles(skeleton)
        fewest, most = len(shingles) * MIN_SIMILARITY, len(shingles) / MIN_SIMILARITY
        seen: set[int] = set()
        for one in self._rarest(shingles):
            for size, at in self._index.get(one, ()):
                if before is not None and at >= before:
                    break
                if at in seen or not fewest <= size <= most:
                    continue
                seen.add(at)
                shared = len(shingles & _shingles(self._skeletons[at]))
                if shared >= MIN_SIMILARITY * (len(shingles) + size - shared):
                    yield at

    def _rarest(self, shingles: set[str]) -> list[str]:
        count = len(shingles) - ceil(MIN_SIMILARITY * len(shingles)) + 1
        return sorted(shingles, key=lambda one: (self._counts[one], one))[:count]


def _shingles(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[at : at + SHINGLE_CHARS] for at in range(len(padded) - SHINGLE_CHARS + 1)}


class Messages:
    """Messages, each with its place, that others are compared with."""

    def __init__(self, rows: Iterable[tuple[str, Row]]) -> None:
        self._exact: dict[str, str] = {}
        skeletons: dict[str, str] = {}
        for place, row in rows:
            self._exact.setdefault(normalize(row.message), place)
            if (text := skeleton(row)) is not None:
                skeletons.setdefault(text, place)
        self._places = list(skeletons.values())
        self._alike = Alike(list(skeletons))

    def __len__(self) -> int:
        """How many different messages there are."""
        return len(self._exact)

    def twin(self, row: Row) -> str | None:
        """What a row shares, as in "asks what train.jsonl:2 asks"; None if nothing."""
        if (place := self._exact.get(normalize(row.message))) is not None:
            return f"asks what {place} asks"
        if (text := skeleton(row)) is not None:
            at = min(self._alike.find(text), default=None)
            if at is not None:
                return f"asks nearly what {self._places[at]} asks"
        return None


def messages_of(split: str, rows: Sequence[Row]) -> Messages:
    """The messages of a split, in the places that its file gives them."""
    return Messages((f"{split}.jsonl:{number}", row) for number, row in enumerate(rows, 1))


@cache
def people(folder: Path = PEOPLE) -> Messages:
    """The hand-written evaluation messages, all files of the folder.

    Raises:
        InputError: the folder holds no file, or a row of one is bad.
    """
    rows: list[tuple[str, Row]] = []
    for path in sorted(folder.glob("*.jsonl")):
        place = f"stages/data/people/{path.name}"
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    rows.append((f"{place}:{number}", parse_row(line)))
                except ValueError as error:
                    raise InputError(f"{place}:{number}: {error}") from error
    if not rows:
        raise InputError(
            f"{folder} holds no evaluation rows, so nothing can be kept from them: restore the "
            "folder from the project"
        )
    return Messages(rows)


def check_leaks(rows: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Checks that train has nothing that validation or test asks, and no evaluation message.

    Validation is held to the second too: it chooses the model.

    Returns:
        How many messages and templates were compared.

    Raises:
        StageFailed: a message, one alike or its template is in two places; the first are named.
    """
    train = messages_of("train", rows["train"])
    templates = {template(row) for row in rows["train"]} - {None}
    held_out = len(rows["test"]) + len(rows["validation"])
    leaks = []
    for split in ("test", "validation"):
        for number, row in enumerate(rows[split], 1):
            if (twin := train.twin(row)) is not None:
                leaks.append(f"{split}.jsonl:{number} {twin}")
            elif template(row) in templates:
                leaks.append(f"{split}.jsonl:{number} has train's template {template(row)}")
    if leaks:
        raise StageFailed(
            f"{len(leaks)} of {held_out} held-out rows leak into train ({_first(leaks)}): change "
            "the seed, or take the rows out of one of the files"
        )
    evaluation = people()
    for split in ("train", "validation"):
        for number, row in enumerate(rows[split], 1):
            if (twin := evaluation.twin(row)) is not None:
                leaks.append(f"{split}.jsonl:{number} {twin}")
    if leaks:
        raise StageFailed(
            f"{len(leaks)} of the rows to train on are evaluation messages ({_first(leaks)}): take "
            "them out, what was trained on measures nothing"
        )
    return {
        "held_out_rows": held_out,
        "train_messages": len(train),
        "train_templates": len(templates),
        "evaluation_messages": len(evaluation),
        "leaks": 0,
    }


def _first(leaks: Sequence[str]) -> str:
    more = "; ..." if len(leaks) > NAMED_LEAKS else ""
    return "; ".join(leaks[:NAMED_LEAKS]) + more
