"""What makes two messages one request, the check that none leaks, and the dealing by groups."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from stages.core.errors import InputError, StageFailed
from stages.data.generate import generate
from stages.data.leaks import PEOPLE, check_leaks, messages_of, normalize, people, skeleton
from stages.data.products import SPLITS
from stages.data.splits import deal, together
from stages.intent.rows import Answer, Row, read_rows, write_rows

CATALOG = ("Milk (1L)", "Roma Tomatoes (500g)", "Butter (250g pack)")


def _row(message: str, product: str = "Milk (1L)", **extra: object) -> Row:
    return Row(CATALOG, message, Answer("add", product, 1), "english", extra)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    counts = {"train": 3000, "validation": 300, "test": 600}
    return {split: list(generate(5, split, count)) for split, count in counts.items()}


# Two messages


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("could you put 3 Milk (1L) in my basket", "COULD you put twenty-two milks in my basket!"),
        ("could you put 3 milk in my basket", "could you put milk in my basket"),
        ("¿podría poner dos milk en el carrito?", "podria poner 14 milk (1l) en el carrito"),
        ("molim vas dodajte pet milk u košaricu", "Molim Vas, dodajte milk u kosaricu"),
    ],
)
def test_same_request_with_another_number_has_one_skeleton(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)
    assert skeleton(_row(one)) == skeleton(_row(other)) is not None


def test_product_is_masked_in_the_forms_people_write() -> None:
    milk = skeleton(_row("we are out of milk again and need it by tomorrow"))
    tomato = _row("we are out of Roma tomatos again and need it by tomorrow", CATALOG[1])
    assert skeleton(tomato) == milk == "we are out of _ again and need it by tomorrow"


def test_short_messages_are_alike_only_if_equal() -> None:
    assert skeleton(_row("add 3 milk to my cart, please")) is None
    known = messages_of("train", [_row("add 3 milk please"), _row("add 2 milk")])
    assert known.twin(_row("Add 2 MILK!")) == "asks what train.jsonl:2 asks"
    assert known.twin(_row("add 4 milk please")) is None


def test_a_slip_and_a_greeting_stay_alike_and_another_sentence_does_not() -> None:
    text = "the kids drank it all again so could you bring us 3 milk before breakfast tomorrow"
    known = messages_of("train", [_row("something else"), _row(text)])
    alike = "asks nearly what train.jsonl:2 asks"
    assert known.twin(_row(text.replace("breakfast", "brekfast"))) == alike
    assert known.twin(_row(f"Hello! {text.replace('milk', 'butter')}", CATALOG[2])) == alike
    assert known.twin(_row("the kids drank it all again, so never mind the 3 milk")) is None
    assert len(known) == 2


def test_index_finds_what_comparing_every_pair_finds(rows: dict[str, list[Row]]) -> None:
    def shingles(text: str) -> set[str]:
        return {f" {text} "[at : at + 5] for at in range(len(text) - 2)}

    train = [text for row in rows["train"][:300] if (text := skeleton(row))]
    # Some with a tail cut off: pairs on both sides of the threshold.
    asked = [text[:cut] for cut in (-1, -4, -7, -10) for text in train[:100]]
    known = messages_of("train", [_row(text) for text in train])
    sets = [shingles(text) for one in train if (text := skeleton(_row(one)))]
    found, expected = [], []
    for text in asked:
        found.append(known.twin(_row(text)) is not None)
        own = shingles(skeleton(_row(text)) or "")
        near = any(len(own & one) >= 0.8 * len(own | one) for one in sets)
        same = any(normalize(text) == normalize(one) for one in train)
        expected.append(near or same)
    assert found == expected
    assert 20 < sum(found) < len(found) - 20


# The check


def test_generated_rows_pass_at_the_size_of_the_demo(rows: dict[str, list[Row]]) -> None:
    started = time.monotonic()
    told = check_leaks(rows)
    assert time.monotonic() - started < 15
    assert told["held_out_rows"] == 900 and told["leaks"] == 0
    assert told["evaluation_messages"] > 600


def test_a_leak_fails_and_is_named(rows: dict[str, list[Row]]) -> None:
    row = rows["test"][3]
    shouted = Row(row.catalog, row.message.upper() + "!!", row.answer, "english", {})
    splits = {"train": [rows["train"][0], shouted], "validation": [], "test": rows["test"][:10]}
    with pytest.raises(StageFailed, match=r"test\.jsonl:4 asks what train\.jsonl:2 asks"):
        check_leaks(splits)
    reworded = replace(row, message="something else", extra={"template": row.extra["template"]})
    with pytest.raises(StageFailed, match=r"test\.jsonl:4 has train's template"):
        check_leaks(splits | {"train": [reworded]})


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_leak_with_another_product_fails_and_is_named(split: str) -> None:
    text = "one more thing, would you please also bring us 2 of the milk cartons"
    train = [_row("x"), _row(text)]
    held = _row(text.upper().replace("2", "eleven").replace("MILK", "butter"), CATALOG[2])
    nearly = rf"^1 of 1 held-out .*{split}\.jsonl:1 asks nearly what train\.jsonl:2 asks"
    with pytest.raises(StageFailed, match=nearly):
        check_leaks({"train": train, "validation": [], "test": [], split: [held]})


def test_many_leaks_are_counted_and_the_first_named() -> None:
    train = [_row(f"message {word}") for word in "abcdefgh"]
    with pytest.raises(
        StageFailed, match=r"^8 of 8 held-out .*test\.jsonl:5 asks .*; \.\.\.\)"
    ) as told:
        check_leaks({"train": train, "validation": [], "test": train})
    assert "test.jsonl:6" not in str(told.value)


# Evaluation messages


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("name", sorted(path.name for path in PEOPLE.glob("*.jsonl")))
def test_no_evaluation_message_is_trained_on(split: str, name: str) -> None:
    row = read_rows(PEOPLE / name)[11]
    splits = {"train": [_row("x")], "validation": [], "test": []}
    splits[split] = [_row("y"), replace(row, message=f"{row.message.upper()}!")]
    with pytest.raises(StageFailed, match=rf"{split}\.jsonl:2 asks .*data/people/[\w-]+\.jsonl:"):
        check_leaks(splits)
    if split == "train":  # to be tested on is what they are for
        check_leaks({"train": [_row("x")], "validation": [], "test": splits["train"]})


def test_evaluation_message_with_another_number_is_found() -> None:
    file = PEOPLE / "orders-dev.jsonl"
    asked = [
        (number, row)
        for number, row in enumerate(read_rows(file), 1)
        if skeleton(row) and " two " in row.message
    ]
    number, row = asked[0]
    other = replace(row, message=row.message.replace(" two ", " seventeen "))
    with pytest.raises(StageFailed, match=rf"asks nearly what \S*orders-dev\.jsonl:{number} asks"):
        check_leaks({"train": [other], "validation": [], "test": []})


def test_a_folder_without_evaluation_messages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation rows"):
        people(tmp_path)
    (tmp_path / "a.jsonl").write_text("\n{}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.jsonl:1: "):
        people(tmp_path)
    write_rows(tmp_path / "a.jsonl", [_row("one"), _row("two milks")])
    assert people(tmp_path).twin(_row("Two milks")) == (
        "asks what stages/data/people/a.jsonl:2 asks"
    )


# Groups


def test_groups_join_over_messages_templates_and_skeletons() -> None:
    rows = [
        _row("milk please"),
        _row("a sentence of its own that nobody else in this file has said"),
        _row("MILK, please", template="a"),
        _row("could you put 3 milk in my basket today"),
        _row("butter", template="a"),
        _row("could you put 8 milk in my basket todday"),
        _row("so could you put butter in my basket today", CATALOG[2], template="a"),
    ]
    groups = together(rows)
    assert [[rows.index(row) for row in group] for group in groups] == [[0, 2, 3, 4, 5, 6], [1]]


def test_a_large_group_goes_to_train() -> None:
    large = [_row(f"large {number}") for number in range(60)]
    groups = [large, *([_row(f"small {number}")] for number in range(40))]
    proportions = {"train": 8, "validation": 1, "test": 1}
    for seed in range(20):
        dealt = deal(groups, proportions, seed)
        assert {split: len(dealt[split]) for split in SPLITS} == {
            "train": 80, "validation": 10, "test": 10
        }  # fmt: skip
        assert all(row in dealt["train"] for row in large)
    assert deal(groups, proportions, 1) != deal(groups, proportions, 2)


def test_three_groups_fill_three_splits_and_two_do_not() -> None:
    groups = [[_row(f"{name} {n}") for n in range(12)] for name in "abc"]
    proportions = {"train": 8, "validation": 1, "test": 1}
    assert [len(dealt) for dealt in deal(groups, proportions, 1).values()] == [12, 12, 12]
    with pytest.raises(InputError, match="24 rows have too few different messages"):
        deal(groups[:2], proportions, 1)
