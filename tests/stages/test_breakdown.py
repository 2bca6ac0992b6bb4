"""Where a model is right and wrong: hand-counted cases."""

from __future__ import annotations

import pytest

from stages.bench_cpu.breakdown import by_slice, calibration, confusion, coverage
from stages.intent.metrics import Score, score
from stages.intent.rows import Answer, Row

CATALOG = ("Milk (1L)", "Bread (500g)")


def _row(action: str, **slices: object) -> Row:
    extra = {"slice": slices} if slices else {}
    return Row(CATALOG, "a message", Answer(action, "Milk (1L)", 1), "english", extra)


def _scores(rows: list[Row], answers: list[Answer]) -> list[Score]:
    return [score(row, answer.to_json()) for row, answer in zip(rows, answers, strict=True)]


ROWS = [
    _row("add", register="curt", near_miss=True, noise="typo+filler"),
    _row("add", register="curt", near_miss=False),
    _row("remove", register="polite", near_miss=True),
    _row("remove"),
]
ANSWERS = [
    Answer("add", "Milk (1L)", 1),
    Answer("add", "Bread (500g)", 1),
    Answer("add", "Milk (1L)", 1),
    Answer("remove", "Milk (1L)", 1),
]
SCORES = _scores(ROWS, ANSWERS)


def test_slices_are_counted_apart_and_rows_without_one_left_out() -> None:
    found = by_slice(ROWS, SCORES)
    assert list(found) == ["register", "near_miss", "noise"]
    assert {value: one["n"] for value, one in found["noise"].items()} == {"filler": 1, "typo": 1}
    assert {v: (one["value"], one["n"]) for v, one in found["register"].items()} == {
        "curt": (0.5, 2),
        "polite": (0.0, 1),
    }
    assert found["near_miss"]["true"]["n"] == 2 and found["near_miss"]["false"]["value"] == 0.0
    assert by_slice(ROWS[3:], SCORES[3:]) == {}


def test_confusion_counts_the_wanted_against_the_answered() -> None:
    assert confusion(ROWS, ANSWERS) == {
        "add": {"add": 2, "remove": 0},
        "remove": {"add": 1, "remove": 1},
    }


def test_the_surest_answers_come_first() -> None:
    points = {one["share"]: one for one in coverage([0.9, 0.4, 0.5, 0.8], SCORES)}
    assert points[0.5]["exact"]["value"] == 1.0 and points[0.5]["threshold"] == 0.8
    assert points[1.0]["exact"]["value"] == 0.5 and points[1.0]["threshold"] == 0.4
    assert points[0.7]["exact"] == pytest.approx(
        {"value": 2 / 3, "n": 3, "low": 0.2077, "high": 0.9385}, abs=1e-3
    )


def test_calibration_weighs_each_bin_by_its_rows() -> None:
    found = calibration([1.0, 0.95, 0.15, 0.25], SCORES)
    assert [(one["low"], one["exact"]["n"]) for one in found["bins"]] == [
        (0.1, 1), (0.2, 1), (0.9, 2),
    ]  # fmt: skip
    # Right were the first and the last: |0.975 - 0.5| of two rows, |0.15 - 0| and |0.25 - 1|.
    assert found["expected_error"] == pytest.approx((2 * 0.475 + 0.15 + 0.75) / 4)
