"""The rules that a model is compared with: what they must get, and what they score."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from stages.data.generate import generate
from stages.data.rates import Rates
from stages.intent import rules
from stages.intent.metrics import score
from stages.intent.rows import Answer, read_rows

PEOPLE = Path(__file__).parents[2] / "stages/data/people"
CATALOG = (
    "Milk (1L)", "Bread (500g)", "USB-C Cable (1m)", "USB-C Cable (2m)", "Olive Oil (250ml jar)",
)  # fmt: skip


@pytest.mark.parametrize(
    ("message", "action", "line", "quantity"),
    [
        ("milk", "add", 0, 1),
        ("eighty-one milks please", "add", 0, 81),
        ("dvadeset i devet milk, hvala", "add", 0, 29),
        ("sesenta y nueve bread", "add", 1, 69),
        ("two, no, three milks", "add", 0, 3),
        ("half a dozen olive oils", "add", 4, 6),
        ("usb-c cable 2m x2", "add", 3, 2),
        ("2 usb-c cable 1 metre", "add", 2, 2),
        ("table 7: three breads", "add", 1, 3),
        ("we're out of milk", "add", 0, 1),
        ("don't forget the olive oil", "add", 4, 1),
        ("remove the bread, keep the milk", "remove", 1, 1),
        ("bread -2", "remove", 1, 2),
        ("makni bred, ostavi milk", "remove", 1, 1),
        ("ya no quiero bread", "remove", 1, 1),
        ("ya no queda milk", "add", 0, 1),
        ("xyzzy", "add", 0, 1),
    ],
)
def test_what_rules_can_know(message: str, action: str, line: int, quantity: int) -> None:
    assert rules.answer(CATALOG, message) == Answer(action, CATALOG[line], quantity)


def test_a_word_is_no_slip_of_one_with_four_letters_more() -> None:
    lines = ("Soap", "Chocolaterie")
    assert rules.answer(lines, "chocolateri").product == "Chocolaterie"
    assert rules.answer(lines, "chocolat").product == "Soap"


def _exact(rows: list) -> float:
    answers = [rules.answer(row.catalog, row.message).to_json() for row in rows]
    return sum(score(row, text).exact for row, text in zip(rows, answers, strict=True)) / len(rows)


@pytest.mark.parametrize(
    ("file", "least"), [("english", 0.6), ("croatian", 0.7), ("spanish", 0.65)]
)
def test_they_are_worth_comparing_with(file: str, least: float) -> None:
    assert _exact(read_rows(PEOPLE / f"{file}-dev.jsonl")) >= least


def test_they_know_most_of_what_the_generator_says_without_noise() -> None:
    none = Rates(**{field.name: 0.0 for field in fields(Rates)})
    assert _exact(list(generate(3, "train", 1500, rates=none))) >= 0.65
