"""Import: the formats of a user's file, what is wrong with a row, and what is skipped."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import InputError
from stages.data.generate import generate
from stages.data.leaks import PEOPLE, skeleton
from stages.data.params import Params
from stages.data.products import SPLITS
from stages.data.stage import run
from stages.intent.rows import Answer, Row, read_rows, write_rows

ROOT = Path(__file__).parents[2]
EXPORT = ("catalog", "message", "action", "product", "quantity", "language")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Rows in three languages, without what only the generator knows."""
    return [
        Row(row.catalog, row.message, row.answer, row.language)
        for row in islice(generate(3, "train", 90), 90)
    ]


def _run(out: Path, file: Path, **given: object) -> dict[str, Any]:
    out.mkdir()
    values = {"seed": 9, "train_rows": 8, "validation_rows": 1, "test_rows": 1} | given
    return run(Params(import_path=str(file), **values), {}, out)  # type: ignore[arg-type]


def _dealt(out: Path) -> dict[str, list[Row]]:
    return {split: read_rows(out / f"{split}.jsonl") for split in SPLITS}


def _statistics(out: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((out / "statistics.json").read_text(encoding="utf-8"))
    return told


def _rejects(out: Path) -> list[dict[str, Any]]:
    lines = (out / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _cells(row: Row, between: str = "\n") -> list[object]:
    answer = row.answer
    catalog = between.join(row.catalog)
    return [catalog, row.message, answer.action, answer.product, answer.quantity, row.language]


def _csv(path: Path, header: Sequence[str], table: Sequence[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *table])
    return path


def _export(row: Row, **changes: object) -> str:
    record = dict(zip(EXPORT, _cells(row), strict=True)) | changes
    return json.dumps({key: value for key, value in record.items() if value is not None})


# Formats


def test_every_format_gives_the_same_splits(tmp_path: Path, rows: list[Row]) -> None:
    paper = tmp_path / "paper.jsonl"
    write_rows(paper, rows)
    both = [[row.prompt, row.completion, row.language] for row in rows]
    files = [
        _csv(tmp_path / "pairs.csv", ["prompt", "completion", "language"], both),
        _csv(tmp_path / "lines.CSV", EXPORT, [_cells(row) for row in rows]),
        _csv(tmp_path / "bars.csv", EXPORT, [_cells(row, " | ") for row in rows]),
    ]
    mixed = tmp_path / "mixed.jsonl"
    lines = [
        (row.to_json(), _export(row), _export(row, catalog=list(row.catalog)))[number % 3]
        for number, row in enumerate(rows)
    ]
    mixed.write_text("\n".join(lines), encoding="utf-8-sig")
    for file in files[:2]:  # line ends and byte order mark as spreadsheets on Windows write them
        text = file.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\n", "\r\n")
        files.append(tmp_path / f"windows-{file.name}")
        files[-1].write_bytes(text.replace("l", "L", 1).encode("utf-8-sig"))
    _run(tmp_path / "paper", paper)
    assert {row.to_json() for of in _dealt(tmp_path / "paper").values() for row in of} == {
        row.to_json() for row in rows
    }
    for file in (*files, mixed):
        out = tmp_path / f"out-{file.name}"
        _run(out, file)
        for name in (*(f"{split}.jsonl" for split in SPLITS), "statistics.json", "rejects.jsonl"):
            assert (out / name).read_bytes() == (tmp_path / "paper" / name).read_bytes(), file.name


def test_csv_without_language_and_with_columns_of_its_own(tmp_path: Path, rows: list[Row]) -> None:
    header = [*EXPORT[:5], "language", "template", "store"]
    table = [
        [*_cells(row)[:5], "", "" if at % 2 else "one", f"s{at}"] for at, row in enumerate(rows)
    ]
    _run(tmp_path / "out", _csv(tmp_path / "own.csv", header, table))
    dealt = _dealt(tmp_path / "out")
    assert sum(map(len, dealt.values())) == 90
    assert all(row.language is None for split in SPLITS for row in dealt[split])
    homes = {split for split in SPLITS for row in dealt[split] if "template" in row.extra}
    assert homes == {"train"}  # 45 of 90 are too many for another
    assert dealt["test"][0].extra.keys() == {"store"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no rows"),
        ("prompt,completion\n", "holds no rows"),
        ("\n\nprompt,language\na,b\n", r"bad\.csv:3: .*no column 'completion'"),
        ("catalog,message,action,quantity\n", r"bad\.csv:1: .*no column 'product'"),
        ("name,text\n", r"bad\.csv:1: .*no column 'catalog'"),
        ("prompt;completion\n", r"bad\.csv:1: .*commas"),
        ("prompt,completion,Prompt\n", r"bad\.csv:1: .*two columns 'prompt'"),
        ('prompt,completion\n\n"never\nclosed\n', r"bad\.csv:3: .*not CSV"),
        ("prompt,completion\na,ž\n", r"bad\.csv:2: .*not UTF-8"),
    ],
)
def test_bad_csv_is_refused_where_it_is_bad(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(text.encode("cp1250"))
    for skip_invalid in (False, True):
        with pytest.raises(InputError, match=told):
            _run(tmp_path / f"out-{skip_invalid}", file, skip_invalid=skip_invalid)


@pytest.mark.parametrize("between", [" | ", "\n"])
def test_a_bar_in_a_name_is_no_separator(tmp_path: Path, rows: list[Row], between: str) -> None:
    names = ("Tea|Mint (20 bags)", "Tea|Rose (20 bags)")
    table = [_cells(row) for row in rows]
    table.append([between.join(names), "mint tea for once", "add", names[0], " 2 ", "english"])
    _run(tmp_path / "out", _csv(tmp_path / "own.csv", EXPORT, table))
    found = [row for of in _dealt(tmp_path / "out").values() for row in of if row.catalog == names]
    assert [row.answer for row in found] == [Answer("add", names[0], 2)]


# Bad rows


BAD_CELLS = [
    ("quantity", "0", "answer"),
    ("quantity", "three", "answer"),
    ("quantity", "1.5", "answer"),
    ("quantity", "9" * 5000, "answer"),
    ("action", "swap", "answer"),
    ("product", "Unicorn", "product"),
    ("message", "  ", "message"),
    ("message", "x" * 2001, "message"),
    ("catalog", "", "catalog"),
    ("catalog", "Milk (1L)\nMilk (1L)", "catalog"),
]


@pytest.mark.parametrize(("column", "cell", "kind"), BAD_CELLS)
def test_csv_names_the_line_where_a_bad_row_begins(
    tmp_path: Path, rows: list[Row], column: str, cell: str, kind: str
) -> None:
    table = [_cells(row) for row in rows]
    table[4][EXPORT.index(column)] = cell
    file = _csv(tmp_path / "mine.csv", EXPORT, table)
    line = 2 + sum(len(row.catalog) for row in rows[:4])  # a line of the file a line of the catalog
    with pytest.raises(InputError, match=rf"mine\.csv:{line}: "):
        _run(tmp_path / "out", file)
    assert not list((tmp_path / "out").iterdir())
    metrics = _run(tmp_path / "skipped", file, skip_invalid=True)
    assert [(one["line"], one["kind"]) for one in _rejects(tmp_path / "skipped")] == [(line, kind)]
    assert metrics["skipped_rows"] == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"product": None}, "'product' is missing"),
        ({"message": 3}, "'message' is not text"),
        ({"language": 3}, "'language' is not text"),
        ({"catalog": 3}, "'catalog' is neither"),
        ({"catalog": ["a", 3]}, "'catalog' is neither"),
        ({"catalog": []}, "catalog is empty"),
        ({"quantity": "3"}, "quantity must be a whole number"),
        ({"quantity": True}, "quantity must be a whole number"),
        ({"message": "half \ud800 of a pair"}, "surrogate"),
        (dict.fromkeys(EXPORT), "other keys than"),
    ],
)
def test_bad_row_of_an_export_is_named(
    tmp_path: Path, rows: list[Row], changes: dict[str, object], told: str
) -> None:
    lines = [_export(row) for row in rows]
    lines[6] = _export(rows[6], **changes)
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match=rf"mine\.jsonl:7: .*{told}"):
        _run(tmp_path / "out", file)


def test_bad_rows_are_skipped_counted_and_told(tmp_path: Path, rows: list[Row]) -> None:
    lines = [row.to_json() for row in rows]
    lines[3:3] = ["{not json", "[1]", "9" * 5000, "", _export(rows[3], quantity=0)]
    first = rows[0]
    wrong = replace(first, answer=replace(first.answer, quantity=first.answer.quantity + 1))
    lines += [
        wrong.to_json(),
        first.to_json(),
        read_rows(PEOPLE / "english-dev.jsonl")[0].to_json(),
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.jsonl:4: the row is not JSON"):
        _run(tmp_path / "stops", file)
    metrics = _run(tmp_path / "out", file, skip_invalid=True)
    rejects = _rejects(tmp_path / "out")
    assert [(one["line"], one["kind"]) for one in rejects] == [
        (4, "json"), (5, "json"), (6, "json"), (8, "answer"), (96, "two answers"),
        (98, "evaluation"),
    ]  # fmt: skip
    assert all(one.keys() == {"line", "kind", "reason"} for one in rejects)
    assert "in line 1 and" in rejects[4]["reason"]
    assert "english-dev.jsonl:1" in rejects[5]["reason"]
    told = _statistics(tmp_path / "out")["import"]
    assert told["skipped"] == {"answer": 1, "evaluation": 1, "json": 3, "two answers": 1}
    assert told["repeated"] == 1
    assert metrics["skipped_rows"] == 6 and sum(metrics["rows"].values()) == 90
    written = {row.to_json() for of in _dealt(tmp_path / "out").values() for row in of}
    assert written == {row.to_json() for row in rows}


def test_a_file_of_bad_rows_fails_all_the_same(tmp_path: Path, rows: list[Row]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n" + "{}\n" * 50, encoding="utf-8")
    with pytest.raises(InputError, match=r"no good row, all 50 .* line 2: the row has other keys"):
        _run(tmp_path / "a", file, skip_invalid=True)
    write_rows(file, rows[:29])
    with file.open("a", encoding="utf-8") as more:
        more.write("{}\n" * 50)
    with pytest.raises(InputError, match="29 different rows and 50 that were skipped"):
        _run(tmp_path / "b", file, skip_invalid=True)
    assert not list((tmp_path / "a").iterdir()) + list((tmp_path / "b").iterdir())


# What must not be apart, and what must not be in


def test_rows_that_ask_alike_stay_in_one_split(tmp_path: Path, rows: list[Row]) -> None:
    long = [row for row in rows if skeleton(row)][:50]
    other = []
    for row in long:
        number = row.answer.quantity
        answer = Answer(row.answer.action, row.answer.product, number % 90 + 1)
        other.append(replace(row, message=f"{row.message} 77", answer=answer))
    write_rows(tmp_path / "mine.jsonl", [*rows, *other])
    _run(tmp_path / "out", tmp_path / "mine.jsonl", train_rows=1)
    homes = {row.message: split for split, of in _dealt(tmp_path / "out").items() for row in of}
    assert len(homes) == 140 and len(set(homes.values())) == 3
    assert all(homes[row.message] == homes[f"{row.message} 77"] for row in long)
    told = _statistics(tmp_path / "out")["import"]
    assert told["groups"] <= 90 and told["largest_group"] >= 2


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_evaluation_rows_cannot_be_imported(tmp_path: Path, rows: list[Row], suffix: str) -> None:
    dev = read_rows(PEOPLE / "english-dev.jsonl")
    file = tmp_path / f"mine.{suffix}"
    if suffix == "csv":
        _csv(file, EXPORT, [_cells(row, " | ") for row in dev])
    else:
        write_rows(file, dev)
    place = rf"mine\.{suffix}:{1 + (suffix == 'csv')}: .*stages/data/people/english-dev\.jsonl:1 "
    with pytest.raises(InputError, match=place):
        _run(tmp_path / "a", file)
    # One row among many, in another spelling: which split it would have gone to does not matter.
    hidden = replace(dev[20], message=dev[20].message.upper(), catalog=dev[20].catalog[::-1])
    write_rows(tmp_path / "hidden.jsonl", [*rows, hidden])
    with pytest.raises(InputError, match=r"hidden\.jsonl:91: .*english-dev\.jsonl:21 "):
        _run(tmp_path / "b", tmp_path / "hidden.jsonl")


def test_the_command_line_says_it_in_one_sentence(tmp_path: Path, rows: list[Row]) -> None:
    table = [_cells(row) for row in rows]
    table[0][4] = "none"
    file = _csv(tmp_path / "mine.csv", EXPORT, table)
    params = tmp_path / "p.json"

    def call(**given: object) -> subprocess.CompletedProcess[str]:
        params.write_text(json.dumps({"seed": 1, "import_path": str(file)} | given))
        command = [sys.executable, "-m", "stages.data", "--params", str(params)]
        return subprocess.run(
            [*command, "--out", str(tmp_path / "out")],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    refused = call()
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "mine.csv:2: quantity must be a whole number" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert call(skip_invalid=True).returncode == 0
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["skipped_rows"] == 1
    assert {"rejects.jsonl", "train.jsonl"} <= manifest["files"].keys()


def test_large_files_are_grouped_in_seconds(tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer)
    table.writerow(EXPORT)
    table.writerows(_cells(row) for row in generate(8, "train", 10_000))
    file.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    started = time.monotonic()
    _run(tmp_path / "out", file)
    assert time.monotonic() - started < 30  # 3 s on two cores of a server
    assert sum(map(len, _dealt(tmp_path / "out").values())) > 9_900
