"""The load test's arithmetic, on small results; nothing is measured here."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.intent.rows import Answer, Row
from stages.loadtest import loads, samples
from stages.loadtest.bars import at_least, at_most, table
from stages.loadtest.samples import Limits, Sample
from stages.loadtest.servers import grammar, schema

ROWS = [
    Row((f"Tea {n}", "Soap"), f"add {n + 1} Tea {n}", Answer("add", f"Tea {n}", n + 1))
    for n in range(50)
]


def asked(start_sec: float, took_sec: float, status: int = 200) -> Sample:
    return Sample(start_sec, took_sec, status, True if status == 200 else None)


def test_known_catalogs_hold_what_their_rows_ask_for() -> None:
    rows = loads.known(ROWS, 2)
    assert len(rows) == 40 and len({row.catalog for row in rows}) == 2
    assert all(len(row.catalog) == 20 and row.answer.product in row.catalog for row in rows)
    assert rows[0].catalog != rows[1].catalog and rows[0].catalog == rows[2].catalog
    assert len({row.message for row in rows}) == 40
    assert len({row.catalog for row in loads.known(ROWS, 1)}) == 1


def test_unknown_catalogs_never_come_twice_and_every_server_gets_the_same() -> None:
    first = list(itertools.islice(loads.unknown(ROWS, seed=3), 200))
    assert len({row.catalog for row in first}) == 200
    assert first == list(itertools.islice(loads.unknown(ROWS, seed=3), 200))
    other = {row.catalog for row in itertools.islice(loads.unknown(ROWS, seed=4), 200)}
    assert not other & {row.catalog for row in first}
    assert {tuple(sorted(row.catalog)) for row in first} == {
        tuple(sorted(row.catalog)) for row in loads.known(ROWS, 2)
    }


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(InputError, match="19 rows: at least 20"):
        loads.known(ROWS[:19], 1)


def test_only_answers_count_and_the_time_runs_from_the_first_request() -> None:
    some = [asked(10.0, 0.5), asked(10.0, 2.0), asked(10.1, 0.01, 429), asked(11.0, 9.0, 503)]
    assert samples.per_second(some) == pytest.approx(2 / 2.0)
    assert samples.per_second([asked(0, 1, 503)]) == 0.0
    assert samples.took(some, 0.5) == pytest.approx(1.25)
    assert samples.took(some, 1.0, (429, 503)) == 9.0
    assert samples.took(some, 0.5, (500,)) is None
    assert samples.statuses([*some, asked(1, 1, 0)]) == {"none": 1, "200": 2, "429": 1, "503": 1}


def test_normal_is_a_run_of_quick_answers_after_the_flood() -> None:
    slow = [asked(100.0 + n, 0.5) for n in range(3)]
    quick = [asked(103.0 + n / 10, 0.014) for n in range(10)]
    assert samples.normal_after_sec(slow + quick, 98.0, 0.01) == pytest.approx(5.0)
    assert samples.normal_after_sec(slow, 98.0, 0.01) is None
    refused = [asked(103.0, 0.01, 429) if n == 5 else one for n, one in enumerate(quick)]
    assert samples.normal_after_sec(refused, 98.0, 0.01) is None
    assert samples.normal_after_sec(quick, 104.0, 0.01) == 0.0


@pytest.mark.parametrize(
    ("past_sec", "requests", "met"),
    [(1, 99, False), (2, 9, False), (2, 10, True), (20, 0, True)],
)
def test_limits_want_both_and_end_in_any_case(past_sec: float, requests: int, met: bool) -> None:
    assert Limits(2, 10, 20).met(past_sec, requests) is met


def test_samples_come_back_and_are_the_same_bytes(tmp_path: Path) -> None:
    groups = [({"phase": "a"}, [asked(1.5, 0.25), asked(2.0, 0.5, 429)]), ({"phase": "b"}, [])]
    for name in ("one", "two"):
        samples.write(tmp_path / name, groups)
    assert samples.read(tmp_path / "one") == groups
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_bars_say_what_is_missed() -> None:
    made = [
        at_least("a", 3.0, 3, "×"),
        at_most("b", 101.0, 100, " ms", "x"),
        at_most("c", None, 1, ""),
    ]
    assert [one.met for one in made] == [True, False, False]
    lines = table(made).splitlines()
    assert lines[2] == "| a | ≥ 3× | 3× |"
    assert lines[3] == "| b | ≤ 100 ms | 101 ms (x): missed |"
    assert lines[4] == "| c | ≤ 1 | nothing: missed |"


def test_the_others_may_answer_with_the_catalog_alone() -> None:
    catalog = ['Say "cheese"', "Čaj \\ 1"]
    assert schema(catalog)["properties"]["product"] == {"enum": catalog}
    products = grammar(catalog).splitlines()[2].removeprefix("product ::= ").split(" | ")
    spelled = [re.sub(r"\\(.)", r"\1", one[1:-1]) for one in products]
    assert [json.loads(one) for one in spelled] == catalog
    assert spelled == [json.dumps(one) for one in catalog]  # as models are trained to write it
    assert "[1-9] [0-9]{0,3}" in grammar(catalog)
