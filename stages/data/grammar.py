"""A language's grammar: its words, its message frames, and which split each frame is dealt to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from random import Random
from typing import Any

import yaml

from stages.core.errors import InputError
from stages.data.products import SPLITS, split_of
from stages.intent.rows import ACTIONS

LANGUAGES = tuple(
    sorted(path.stem for path in Path(__file__).with_name("languages").glob("*.yaml"))
)
# Numbers that are no quantity.
NUMBER_SLOTS = (
    "few", "people", "hour", "minutes", "day", "year", "price", "age", "house", "order",
)  # fmt: skip
SLOTS = ("qp", "qx", "q", "p", "o", "x", *NUMBER_SLOTS)
# Wordings kept of one frame; a frame with many choices is sampled down to it.
MAX_WORDINGS = 240
# Dealt to validation and test at first; those with a word of their own then go to train.
HELD_FRAMES_PERCENT = 30

# The ids of the frames that the shipped base model read: none of them may be held out.
PRETRAINED_FRAMES = Path(__file__).with_name("languages") / "pretrained.txt"

_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]|<(\w+)>")
_WORD = re.compile(r"[^\W\d_]+")

Wording = tuple[str, ...]  # literal, slot, literal, slot, ..., literal


@dataclass(frozen=True)
class Frame:
    """One message template.

    Attributes:
        id: language, action, and a hash of the text: stable when other frames come and go.
        wordings: its texts, split at the slots.
    """

    id: str
    action: str
    register: str
    text: str
    wordings: tuple[Wording, ...]


@dataclass(frozen=True)
class Language:
    """What a language file says, made ready for sampling.

    Attributes:
        plurals: whether nouns of several pieces take the English plural.
        endings: what speakers inflect an English noun with.
        frames: by split and action, one tuple of frames a register.
        numbers: spellings of a number, 1 to 100.
        numbers_alone: the same, where no noun follows.
        phrases: by quantity form, patterns of `{n}`, `{p}` and `{c}`, split at the slots.
        containers: what stands in `{c}`, one piece: "box" of "a box of {p}".
        containers_many: the same for several pieces.
        idioms: spelled-out quantities that stand before a product ("half a dozen").
        idioms_alone: the same, where the product is elsewhere in the sentence.
        reasons: by `any`, `add`, `remove`: sentences, some with slots of `NUMBER_SLOTS` or `{x}`.
        asides: what fits at the end of `any` request, or of one to `add`, with the same slots ("for
            table 7"; "no onions").
        things: nouns that are not for sale, for slot `{x}`: toppings, dishes, rooms, people.
        fillers: words of hesitation.
        kinds: by a word or phrase, the ones that fit wherever it stands: relatives, days, rooms.
    """

    name: str
    plurals: bool
    endings: tuple[str, ...]
    frames: dict[str, dict[str, tuple[tuple[Frame, ...], ...]]]
    numbers: dict[int, tuple[str, ...]]
    phrases: dict[str, tuple[Wording, ...]]
    numbers_alone: dict[int, tuple[str, ...]]
    containers: tuple[str, ...]
    containers_many: tuple[str, ...]
    idioms: dict[int, tuple[str, ...]]
    idioms_alone: dict[int, tuple[str, ...]]
    corrections: tuple[Wording, ...]
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    reasons: dict[str, tuple[Wording, ...]]
    asides: dict[str, tuple[Wording, ...]]
    things: tuple[str, ...]
    fillers: tuple[str, ...]
    kinds: dict[str, tuple[str, ...]]


@cache
def load(name: str) -> Language:
    """Reads a language file of this package.

    Raises:
        InputError: there is no such language.
    """
    if name not in LANGUAGES:
        raise InputError(f"no language {name!r}: there are {', '.join(LANGUAGES)}")
    path = Path(__file__).with_name("languages") / f"{name}.yaml"
    raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    frames = [
        frame
        for action in ACTIONS
        for register, texts in raw["frames"][action].items()
        for frame in _frames(name, action, register, texts.splitlines(), raw["lists"])
    ]
    numbers = _numbers(raw["numbers"])
    alone = {n: tuple(text.split("|")) for n, text in raw["numbers"].get("alone", {}).items()}
    return Language(
        name=name,
        plurals=raw["plurals"],
        endings=tuple(raw["endings"]),
        frames=_deal(frames),
        numbers=numbers,
        numbers_alone=numbers | alone,
        phrases={form: tuple(map(_split, texts)) for form, texts in raw["phrases"].items()},
        containers=tuple(raw["containers"]["one"]),
        containers_many=tuple(raw["containers"]["many"]),
        idioms={number: tuple(texts) for number, texts in raw["idioms"].items()},
        idioms_alone={number: tuple(texts) for number, texts in raw["idioms_alone"].items()},
        corrections=tuple(map(_split, raw["corrections"])),
        openers=tuple(raw["openers"]),
        closers=tuple(raw["closers"]),
        reasons={kind: tuple(map(_split, texts)) for kind, texts in raw["reasons"].items()},
        asides={
            kind: tuple(_split(one) for text in texts for one in _expand(text, raw["lists"]))
            for kind, texts in raw["asides"].items()
        },
        things=tuple(raw["things"]),
        fillers=tuple(raw["fillers"]),
        kinds=_kinds(raw["kinds"]),
    )


@cache
def pretrained_frames() -> frozenset[str]:
    """The ids of the frames that the shipped base model read."""
    return frozenset(PRETRAINED_FRAMES.read_text(encoding="utf-8").split())


def all_frames(language: Language, split: str) -> Iterator[Frame]:
    """The frames of a split, both actions."""
    for by_register in language.frames[split].values():
        for frames in by_register:
            yield from frames


def _kinds(lines: Iterable[str]) -> dict[str, tuple[str, ...]]:
    kinds: dict[str, tuple[str, ...]] = {}
    for line in lines:
        words = tuple(line.split("|"))
        kinds |= dict.fromkeys(words, words)
    return kinds


def _frames(
    language: str, action: str, register: str, texts: Iterable[str], lists: dict[str, str]
) -> Iterator[Frame]:
    for text in texts:
        digest = hashlib.sha256(f"{language}/{action}/{text}".encode()).hexdigest()[:10]
        rng = Random(digest)
        expanded = sorted(set(_expand(text, lists)))
        if len(expanded) > MAX_WORDINGS:
            expanded = rng.sample(expanded, MAX_WORDINGS)
        wordings = tuple(map(_split, expanded))
        yield Frame(f"{language}/{action}/{digest}", action, register, text, wordings)


def _expand(text: str, lists: dict[str, str]) -> list[str]:
    """Every wording of a frame's text."""
    parts: list[list[str]] = []
    end = 0
    for match in _CHOICE.finditer(text):
        parts.append([text[end : match.start()]])
        choice = lists[match[2]] if match[2] else match[1]
        # A choice inside brackets may name a list.
        parts.append([o for option in choice.split("|") for o in _options(option, lists)])
        end = match.end()
    parts.append([text[end:]])
    # A choice left empty leaves two spaces, or one before the question mark.
    return ["".join(one).replace("  ", " ").replace(" ?", "?") for one in product(*parts)]


def _options(option: str, lists: dict[str, str]) -> list[str]:
    match = re.search(r"<(\w+)>", option)
    if not match:
        return [option]
    return [option.replace(match[0], word) for word in lists[match[1]].split("|")]


def _split(text: str) -> Wording:
    return tuple(_SLOT.split(text.strip()))


def _words(wording: Wording) -> set[str]:
    return set(_WORD.findall(" ".join(wording[::2]).lower()))


def _key(wording: Wording) -> str:
    """A wording without case, punctuation and kind of slot: frames that share one are alike."""
    slots = ["p" if slot in ("qp", "qx") else slot for slot in wording[1::2]]
    texts = [text for pair in zip(wording[::2], [*slots, ""], strict=True) for text in pair]
    return " ".join(_WORD.findall(" ".join(texts).lower()))


def _pairs(wording: Wording) -> set[str]:
    """Words and slots of a wording, each with the one before it; the first with its start."""
    words = ["^", *_key(wording).split()]
    return {f"{one} {two}" for one, two in pairwise(words)}


def _deal(frames: list[Frame]) -> dict[str, dict[str, tuple[tuple[Frame, ...], ...]]]:
    """Deals frames to the splits by their hash; what the shipped base model read stays in train.

    Two words, or a word and a slot, that follow each other in a held-out wording also do so in some
    train frame of the same action, and no held-out wording is one of train: the test asks for new
    compositions of what was seen, not for new vocabulary and idioms. A frame left without a wording
    goes to train.
    """
    dealt: dict[str, list[Frame]] = {split: [] for split in SPLITS}
    waiting: list[tuple[str, Frame]] = []
    read = pretrained_frames()
    for frame in frames:
        split = split_of(f"frame:{frame.id}", HELD_FRAMES_PERCENT)
        if split == "train" or frame.id in read:
            dealt["train"].append(frame)
        else:
            waiting.append((split, frame))
    known: dict[str, set[str]] = {action: set() for action in ACTIONS}
    taken: dict[str, str] = {}

    def take(split: str, frame: Frame) -> None:
        for wording in frame.wordings:
            taken[_key(wording)] = split
            if split == "train":
                known[frame.action] |= _pairs(wording)

    for frame in dealt["train"]:
        take("train", frame)
    held: list[tuple[str, Frame]] = []
    for split, frame in waiting:  # first the frames that no choice of wording can keep out
        free = [wording for wording in frame.wordings if _key(wording) not in taken]
        # A frame of no words ("{p}: {q}") is every language's.
        if any(_words(wording) and _pairs(wording) <= known[frame.action] for wording in free):
            held.append((split, frame))
        else:
            dealt["train"].append(frame)
            take("train", frame)
    for split, frame in held:
        kept = tuple(
            wording
            for wording in frame.wordings
            if _pairs(wording) <= known[frame.action] and taken.get(_key(wording), split) == split
        )
        if kept:
            home, one = split, replace(frame, wordings=kept)
        else:  # its wordings are another split's
            home = next(taken[key] for key in map(_key, frame.wordings) if key in taken)
            own = (w for w in frame.wordings if taken.get(_key(w), home) == home)
            one = replace(frame, wordings=tuple(own))
        dealt[home].append(one)
        take(home, one)
    return {split: {a: _by_register(dealt[split], a) for a in ACTIONS} for split in SPLITS}


def _by_register(frames: list[Frame], action: str) -> tuple[tuple[Frame, ...], ...]:
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        if frame.action == action:
            groups.setdefault(frame.register, []).append(frame)
    return tuple(tuple(group) for group in groups.values())


def _numbers(raw: dict[str, Any]) -> dict[int, tuple[str, ...]]:
    spellings: dict[int, list[str]] = {
        number: text.split("|") for number, text in enumerate(raw["units"], 1)
    }
    for ten, text in raw["tens"].items():
        spellings[ten] = text.split("|")
    for ten in range(20, 100, 10):
        for unit in range(1, 10):
            number = ten + unit
            if number not in spellings:
                spellings[number] = [
                    f"{spellings[ten][0]}{joiner}{one}"
                    for joiner in raw["joiners"]
                    for one in raw.get("compound_units", {})
                    .get(unit, raw["units"][unit - 1])
                    .split("|")
                ]
    return {number: tuple(texts) for number, texts in spellings.items()}
