"""The data stage as a stage: what it writes, and the import of rows in the paper's format."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.data.generate import generate
from stages.data.leaks import messages_of, normalize, template
from stages.data.params import Params
from stages.data.products import SPLITS
from stages.data.stage import _generated, run
from stages.intent.rows import Answer, Row, read_rows, write_rows

# The stage


def _run(out: Path, **given: object) -> dict[str, object]:
    out.mkdir()
    values = {"seed": 9, "train_rows": 300, "validation_rows": 30, "test_rows": 60} | given
    return run(Params(**values), {}, out)  # type: ignore[arg-type]


def test_stage_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    _run(tmp_path / "a")
    _run(tmp_path / "b")
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {"rejects.jsonl", "statistics.json", *(f"{split}.jsonl" for split in SPLITS)}
    assert (tmp_path / "a/rejects.jsonl").read_bytes() == b""
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_generated_rows_that_something_else_asks_are_drawn_anew() -> None:
    params = Params(seed=9)
    lines = (params.min_catalog_lines, params.max_catalog_lines)
    own = list(islice(generate(9, "test", 60, catalog_lines=lines), 12))
    known = [messages_of("train", own[:5]), messages_of("train", own[5:])]
    assert _generated(params, "test", 12, []) == own
    drawn = _generated(params, "test", 12, known)
    assert len(drawn) == 12 and not any(row in drawn for row in own)


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
