"""The data stage: what the generator promises, the splits, the import, the statistics."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

from stages.core.errors import InputError, StageFailed
from stages.data.corpus import corpus
from stages.data.generate import DEFAULT_LANGUAGES, Noise, generate
from stages.data.grammar import (
    LANGUAGES,
    PRETRAINED_FRAMES,
    all_frames,
    load,
    pretrained_frames,
)
from stages.data.noise import mistype, strip_diacritics
from stages.data.params import Params
from stages.data.products import SPLITS, STYLES, brands, name_words, restyle, shop_range
from stages.data.splits import check_leaks, normalize, template
from stages.data.stage import run
from stages.intent.prompt import render
from stages.intent.rows import ACTIONS, Answer, Row, parse_answer, parse_row, read_rows, write_rows

ROOT = Path(__file__).parents[2]
ROWS = 3000


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {split: list(generate(5, split, ROWS)) for split in SPLITS}


# Products and frames


def test_range_is_wide_and_families_and_brands_are_apart() -> None:
    families = [set(shop_range(split).families) for split in SPLITS]
    names = [{p.name for f in shop_range(split).products for p in f} for split in SPLITS]
    departments = {p.department for f in shop_range("train").products for p in f}
    assert len(set().union(*names)) >= 20_000
    assert len(departments) >= 12
    for sets in (families, names, [set(brands(split)) for split in SPLITS]):
        assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_product_names_are_plain_ascii() -> None:
    for split in SPLITS:
        for family in shop_range(split).products:
            for product in family:
                assert product.name.isascii() and product.name.isprintable()
                assert not set(product.name) & set('"\\')


@pytest.mark.parametrize("name", LANGUAGES)
def test_frames_are_many_and_no_wording_is_in_two_splits(name: str) -> None:
    language = load(name)
    spelled: dict[str, set[tuple[str, ...]]] = {}
    for split in SPLITS:
        spelled[split] = {w for frame in all_frames(language, split) for w in frame.wordings}
    assert not spelled["train"] & (spelled["test"] | spelled["validation"])
    assert not spelled["test"] & spelled["validation"]
    names = [frame.id for split in SPLITS for frame in all_frames(language, split)]
    assert len(names) == len(set(names))
    for action in ACTIONS:
        counts = {s: sum(len(g) for g in language.frames[s][action]) for s in SPLITS}
        assert sum(counts.values()) >= 100
        assert counts["train"] >= 0.7 * sum(counts.values())
        assert min(counts.values()) >= 10


@pytest.mark.parametrize("name", LANGUAGES)
def test_held_out_frames_use_words_of_train(name: str) -> None:
    language = load(name)

    def words(split: str, action: str) -> set[str]:
        frames = (f for f in all_frames(language, split) if f.action == action)
        text = " ".join(" ".join(w[::2]) for f in frames for w in f.wordings)
        return set("".join(c if c.isalpha() else " " for c in text.lower()).split())

    for action in ACTIONS:
        for split in ("validation", "test"):
            assert words(split, action) <= words("train", action)


@pytest.mark.parametrize("name", LANGUAGES)
def test_no_wording_is_of_both_actions(name: str) -> None:
    """Whichever product stands where: "not X, Y" must not add Y here and remove X there."""
    asked: dict[str, set[str]] = {action: set() for action in ACTIONS}
    for frame in (f for split in SPLITS for f in all_frames(load(name), split)):
        for wording in frame.wordings:
            slots = ["p" if slot in ("qp", "qx", "o") else slot for slot in wording[1::2]]
            text = " ".join(
                part for two in zip(wording[::2], [*slots, ""], strict=True) for part in two
            )
            asked[frame.action].add(" ".join(re.findall(r"\w+|[+-]", text.lower())))
    assert not asked["add"] & asked["remove"]


@pytest.mark.parametrize("name", LANGUAGES)
def test_numbers_are_spelled_to_a_hundred_and_no_spelling_means_two(name: str) -> None:
    numbers = load(name).numbers
    assert set(numbers) == set(range(1, 101))
    spellings = [text for texts in numbers.values() for text in texts]
    assert len(spellings) == len(set(spellings))
    plain = [strip_diacritics(text) for text in spellings]
    assert len(plain) == len(set(plain))


# Rows


def test_same_seed_same_rows_other_seed_other_rows(rows: dict[str, list[Row]]) -> None:
    again = list(generate(5, "train", 200))
    other = list(generate(6, "train", 200))
    assert again == rows["train"][:200]
    assert not {row.message for row in again} & {row.message for row in other if row.message[9:]}


def test_rows_are_valid_and_round_trip(rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        for row in rows[split]:
            assert parse_row(row.to_json()) == row
            assert 5 <= len(row.catalog) <= 20
            assert set(row.extra["slice"]) == {
                "register", "quantity_form", "mention", "noise", "near_miss",
            }  # fmt: skip


def test_rows_cover_what_they_should(rows: dict[str, list[Row]]) -> None:
    slices = [row.extra["slice"] for row in rows["train"]]
    assert {one["register"] for one in slices} == {
        "curt", "plain", "polite", "chatty", "indirect", "question",
    }  # fmt: skip
    assert {one["quantity_form"] for one in slices} == {
        "digits", "word", "multiplier", "idiom", "omitted", "corrected",
    }  # fmt: skip
    assert {one["mention"] for one in slices} == {
        "full", "lower", "no_size", "partial", "noun", "misspelt",
    }  # fmt: skip
    languages = Counter(row.language for row in rows["train"])
    assert languages == dict.fromkeys(DEFAULT_LANGUAGES, ROWS // 3)
    quantities = [row.answer.quantity for row in rows["train"]]
    assert max(quantities) > 100
    assert sum(q <= 12 for q in quantities) > 0.75 * len(quantities)
    assert 0.4 < sum(row.answer.action == "add" for row in rows["train"]) / ROWS < 0.7
    assert {len(row.catalog) for row in rows["train"]} == set(range(5, 21))


@cache
def _families() -> dict[str, str]:
    """The family of a catalog line, in whatever style it is written."""
    goods = [p for s in SPLITS for f in shop_range(s).products for p in f]
    return {restyle(p, style).name: p.family for style in STYLES for p in goods}


def test_held_out_rows_ask_for_unseen_families_in_unseen_frames(
    rows: dict[str, list[Row]],
) -> None:
    lines = _families()
    for split in ("validation", "test"):
        own = set(shop_range(split).families)
        assert {lines[row.answer.product] for row in rows[split]} <= own
        templates = {row.extra["template"] for row in rows[split]}
        assert not templates & {row.extra["template"] for row in rows["train"]}
    seen = {lines[line] for row in rows["train"] for line in row.catalog}
    assert seen <= set(shop_range("train").families)


def test_mention_means_one_line_of_the_catalog(rows: dict[str, list[Row]]) -> None:
    for split in SPLITS:
        for row in rows[split]:
            kind, product = row.extra["slice"]["mention"], row.answer.product
            message, plain = row.message.lower(), product.lower()
            if "shout" in row.extra["slice"]["noise"]:
                assert row.message.isupper()
            elif kind == "full":
                # A capital at the start of the message is the one change.
                assert product in row.message or row.message.startswith(product[0].upper())
            elif kind == "lower":
                assert plain in message
            elif kind in ("no_size", "partial", "noun"):
                said = _said(message, product)
                rivals = [line for line in row.catalog if line != product]
                assert said, (row.message, product)
                assert said and not any(said <= name_words(line) for line in rivals)


def _said(message: str, product: str) -> set[str]:
    """Words of the product's name that the message has, singular or plural."""
    found = {w.rstrip(".,!?:;-)").lstrip("-+¿¡(") for w in message.split()}
    return {
        word
        for word in name_words(product)
        if word in found
        or any(f.startswith(word[:-2]) and len(word) > 2 for f in found)
        or any(f.endswith(word) for f in found)
    }


def test_quantity_stands_in_the_message_and_omitted_means_one(rows: dict[str, list[Row]]) -> None:
    for row in (row for split in SPLITS for row in rows[split]):
        form, quantity = row.extra["slice"]["quantity_form"], row.answer.quantity
        message = strip_diacritics(row.message.lower())
        language = load(row.language or "")
        spelled = language.numbers.get(quantity, ()) + language.numbers_alone.get(quantity, ())
        if form == "omitted":
            assert quantity == 1
        elif form in ("digits", "multiplier"):
            assert str(quantity) in message
        elif form == "word":
            assert any(strip_diacritics(text) in message for text in (*spelled, "single", "solo"))
        elif form == "idiom":
            idioms = language.idioms[quantity] + language.idioms_alone[quantity]
            assert any(strip_diacritics(text) in message for text in idioms)
        elif form == "corrected":
            # The number that counts is the last one said.
            candidates = (str(quantity), *map(strip_diacritics, spelled))
            assert any(text in message for text in candidates)


def test_near_misses_are_deliberate(rows: dict[str, list[Row]]) -> None:
    lines = _families()
    for row in rows["train"]:
        twins = [lines[line] for line in row.catalog].count(lines[row.answer.product]) - 1
        if not row.extra["slice"]["near_miss"]:
            assert twins == 0
    share = sum(row.extra["slice"]["near_miss"] for row in rows["train"]) / ROWS
    assert 0.4 < share < 0.6


def test_noise_can_be_switched_off() -> None:
    quiet = Noise(0, 0, 0, 0, 0, 0, 0)
    for row in generate(1, "train", 600, noise=quiet):
        assert row.extra["slice"]["noise"] == "none"
        assert row.extra["slice"]["mention"] != "misspelt"
        assert not row.message[0].islower()


def test_a_slip_changes_one_long_word() -> None:
    from random import Random

    rng = Random(3)
    for _ in range(300):
        before = "please put the yogurt in my cart"
        after = mistype(before, rng).split(" ")
        changed = [a for a, b in zip(before.split(" "), after, strict=True) if a != b]
        assert len(changed) <= 1 and all(len(word) >= 4 for word in changed)


# The pre-training corpus


def test_the_shipped_base_has_read_no_held_out_frame() -> None:
    manifest = json.loads((ROOT / "stages/base/shipped/manifest.json").read_text(encoding="utf-8"))
    listed = hashlib.sha256(PRETRAINED_FRAMES.read_bytes()).hexdigest()
    assert manifest["frames_sha256"] == listed, "pretrained.txt is not of the shipped weights"
    held = {
        frame.id
        for name in DEFAULT_LANGUAGES
        for split in ("validation", "test")
        for frame in all_frames(load(name), split)
    }
    assert held and not held & pretrained_frames()


def test_corpus_is_of_train_and_speaks_more_than_the_task() -> None:
    texts = list(corpus(2, 2000))
    assert texts == list(corpus(2, 2000))
    task = [parts for parts in texts if parts[0].endswith(render(""))]
    assert 0.15 < len(task) / len(texts) < 0.25
    for parts in task:
        for answer in parts[1::2]:
            parse_answer(answer)
    assert len({parts[0].rsplit("\n\n", 1)[-1] for parts in texts if "User:" in parts[0]}) >= 10
    found = [parts for parts in texts if "\n\nFind:\n" in parts[0]]
    for parts in found:
        assert set(parts[1::2]) <= set(parts[0].split("\n"))
    assert 0.2 < len(found) / len(texts) < 0.3
    held = {f for s in ("validation", "test") for f in shop_range(s).families if len(f) > 9}
    for parts in texts:
        assert all(parts) and len(parts) % 2 == 0
        assert not any(f"{family} (" in parts[0] for family in held if " " in family)


# The stage


def _run(out: Path, **given: object) -> dict[str, object]:
    out.mkdir()
    values = {"seed": 9, "train_rows": 300, "validation_rows": 30, "test_rows": 60} | given
    return run(Params(**values), {}, out)  # type: ignore[arg-type]


def test_stage_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    _run(tmp_path / "a")
    _run(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["statistics.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_statistics_are_of_the_rows(tmp_path: Path) -> None:
    metrics = _run(tmp_path / "out")
    statistics = json.loads((tmp_path / "out/statistics.json").read_text(encoding="utf-8"))
    assert metrics["rows"] == {"train": 300, "validation": 30, "test": 60} == statistics["rows"]
    for split in SPLITS:
        written = read_rows(tmp_path / "out" / f"{split}.jsonl")
        told = statistics["splits"][split]
        assert len(written) == statistics["rows"][split]
        assert told["languages"] == dict(Counter(row.language for row in written))
        assert told["actions"] == dict(Counter(row.answer.action for row in written))
        assert sum(told["quantities"].values()) == len(written)
        assert told["quantities"]["1"] == sum(row.answer.quantity == 1 for row in written)
        assert told["catalog_lines"] == {
            str(size): n for size, n in Counter(len(row.catalog) for row in written).items()
        }
        forms = Counter(row.extra["slice"]["quantity_form"] for row in written)
        assert told["quantity_form"] == dict(forms)
        assert len({normalize(row.message) for row in written}) == len(written)


def test_params_are_checked() -> None:
    for bad in (
        {"train_rows": 0},
        {"min_catalog_lines": 1},
        {"min_catalog_lines": 9, "max_catalog_lines": 8},
        {"typo_rate": 1.5},
        {"languages": ()},
        {"languages": ("english", "english")},
    ):
        with pytest.raises(InputError):
            Params(seed=1, **bad)  # type: ignore[arg-type]


def test_unknown_language_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"klingon.*english"):
        _run(tmp_path / "out", languages=("klingon",))


def test_a_leak_fails_the_stage_and_is_named(rows: dict[str, list[Row]]) -> None:
    row = rows["test"][3]
    shouted = Row(row.catalog, row.message.upper() + "!!", row.answer, "english", {})
    splits = {"train": [rows["train"][0], shouted], "validation": [], "test": rows["test"][:10]}
    with pytest.raises(StageFailed, match=r"test\.jsonl:4 asks what train\.jsonl:2 asks"):
        check_leaks(splits)
    template = {"template": row.extra["template"]}
    reworded = Row(row.catalog, "something else", row.answer, "english", template)
    splits["train"] = [reworded]
    with pytest.raises(StageFailed, match=r"test\.jsonl:4 has train's template"):
        check_leaks(splits)


# Import


def _export(path: Path, count: int = 60) -> Path:
    """A file in the paper's format: the three keys and no more."""
    bare = [
        Row(row.catalog, row.message, row.answer, row.language)
        for row in islice(generate(3, "train", count), count)
    ]
    write_rows(path, bare)
    return path


def test_import_deals_every_row_once(tmp_path: Path) -> None:
    file = _export(tmp_path / "mine.jsonl", 200)
    given = file.read_text(encoding="utf-8")
    # The same row twice, and a message that differs in case alone.
    first = read_rows(file)[0]
    loud = Row(first.catalog[::-1], first.message.upper(), first.answer, first.language)
    file.write_text(
        given + given.splitlines()[5] + "\n\n" + loud.to_json() + "\n", encoding="utf-8"
    )
    _run(tmp_path / "out", import_path=str(file), train_rows=8, validation_rows=1, test_rows=1)
    dealt = {split: read_rows(tmp_path / "out" / f"{split}.jsonl") for split in SPLITS}
    assert {split: len(dealt[split]) for split in SPLITS} == pytest.approx(
        {"train": 161, "validation": 20, "test": 20}, abs=2
    )
    assert sum(map(len, dealt.values())) == 201
    lines = {row.to_json() for split in SPLITS for row in dealt[split]}
    assert lines == {line for line in file.read_text(encoding="utf-8").splitlines() if line}
    homes = [
        s for s in SPLITS for row in dealt[s] if normalize(row.message) == normalize(loud.message)
    ]
    assert len(homes) == 2 and len(set(homes)) == 1
    _run(tmp_path / "again", import_path=str(file), train_rows=8, validation_rows=1, test_rows=1)
    for name in ("train.jsonl", "test.jsonl", "statistics.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def _bad(**changes: object) -> str:
    record: dict[str, object] = {
        "prompt": "Catalog:\nYogurt (500g container)\nButter (250g pack)\n\nUser:\nadd butter",
        "completion": Answer("add", "Butter (250g pack)", 1).to_json(),
        "language": "english",
    }
    return json.dumps({k: v for k, v in (record | changes).items() if v is not None})


def _answer(product: str, quantity: str) -> str:
    return f'{{"action": "add", "product": "{product}", "quantity": {quantity}}}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{not json", "not JSON"),
        (_bad(completion=None), "completion"),
        (_bad(prompt=None), "prompt"),
        (_bad(completion=_answer("Milk (1L)", "1")), "not in the row's catalog"),
        *(
            (_bad(completion=_answer("Butter (250g pack)", quantity)), "quantity")
            for quantity in ("0", "-1", "1.5", '"three"', "1000000000000", "true")
        ),
        (_bad(completion='{"action": "swap", "product": "x", "quantity": 1}'), "action"),
        (_bad(prompt="add butter"), "Catalog"),
    ],
)
def test_import_names_file_and_line_of_a_bad_row(tmp_path: Path, line: str, told: str) -> None:
    file = _export(tmp_path / "mine.jsonl")
    good = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*good[:10], line, *good[10:]]), encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.jsonl:11: ") as caught:
        _run(tmp_path / "out", import_path=str(file))
    assert told in str(caught.value)
    assert not list((tmp_path / "out").iterdir())


def test_import_refuses_what_it_cannot_split(tmp_path: Path) -> None:
    few = _export(tmp_path / "few.jsonl", 29)
    with pytest.raises(InputError, match="29 different rows"):
        _run(tmp_path / "a", import_path=str(few))
    with pytest.raises(InputError, match="cannot be read"):
        _run(tmp_path / "b", import_path=str(tmp_path / "none.jsonl"))
    catalog = [f"Item {number}" for number in range(40)]
    same = [
        Row(tuple(catalog[: n + 2]), "two, please", Answer("add", "Item 0", 2)) for n in range(35)
    ]
    write_rows(tmp_path / "same.jsonl", same)
    with pytest.raises(InputError, match="too few different messages"):
        _run(tmp_path / "c", import_path=str(tmp_path / "same.jsonl"))


def test_import_keeps_templates_together_and_minds_no_foreign_keys(tmp_path: Path) -> None:
    rows = [
        Row(row.catalog, row.message, row.answer, row.language, row.extra if at % 3 else odd)
        for at, row in enumerate(generate(4, "train", 400))
        for odd in ({"template": ["a"], "slice": "b"},)
    ]
    write_rows(tmp_path / "own.jsonl", rows)
    _run(tmp_path / "out", import_path=str(tmp_path / "own.jsonl"), train_rows=8,
         validation_rows=1, test_rows=1)  # fmt: skip
    dealt = {split: read_rows(tmp_path / "out" / f"{split}.jsonl") for split in SPLITS}
    assert sum(map(len, dealt.values())) == 400
    names = {s: {template(row) for row in dealt[s]} - {None} for s in SPLITS}
    assert not names["train"] & (names["test"] | names["validation"])
    assert len(dealt["test"]) >= 40 and len(dealt["validation"]) >= 40


def test_import_refuses_two_answers_to_one_request(tmp_path: Path) -> None:
    file = _export(tmp_path / "mine.jsonl")
    row = read_rows(file)[0]
    other = Answer(row.answer.action, row.answer.product, row.answer.quantity + 1)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(Row(row.catalog, row.message, other, row.language).to_json() + "\n")
    with pytest.raises(InputError, match="two answers"):
        _run(tmp_path / "out", import_path=str(file))
