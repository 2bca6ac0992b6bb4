"""What the service and `predict` do before a model is loaded; no engine is needed here."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from stages.core.errors import InputError
from stages.intent.rows import Answer
from stages.intent.walk import Decoded
from stages.serve import measure, predict
from stages.serve.model import GOLDEN_CATALOG, GOLDEN_MESSAGE, as_plain
from stages.serve.requests import RequestError, check_request
from stages.serve.scheduler import Answered


def test_golden_request_is_a_valid_one() -> None:
    check_request(GOLDEN_CATALOG, GOLDEN_MESSAGE, 1_000)


@pytest.mark.parametrize(
    ("catalog", "message", "param", "sentence"),
    [
        ([], "add milk", "catalog", "the catalog is empty"),
        (["Milk", "Milk"], "add milk", "catalog", "catalog line 2 is a duplicate"),
        ([f"Milk {n}" for n in range(5_000)], "add", "catalog", "the catalog has 5,000 lines"),
        ([f"Milk {n}" for n in range(11)], "add", "catalog", "11 lines: this service accepts"),
        (["Milk\nEggs"], "add milk", "catalog", "line break"),
        (["Milk"], " \n", "message", "the message is empty"),
        (["Milk"], "x" * 2_001, "message", "longer than 2,000"),
        (["Milk"], "\ud800", "message", "surrogate"),
    ],
)
def test_refused_requests(catalog: list[str], message: str, param: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence) as caught:
        check_request(catalog, message, 10)
    assert caught.value.param == param


def test_answers_are_plain_and_never_surer_than_certain() -> None:
    answered = Answered(Decoded(Answer("add", "Milk", 2), 1.0000001, 40, 3), 24, 0.0, [5, 6])
    assert as_plain(answered, 0.01234567) == {
        "action": "add",
        "product": "Milk",
        "quantity": 2,
        "probability": 1.0,
        "latency_sec": 0.012346,
        "prompt_tokens": 40,
        "cached_tokens": 24,
        "passes": 3,
    }
    assert not math.isnan(as_plain(answered, 0.0)["latency_sec"])


def test_catalog_file(tmp_path: Path) -> None:
    path = tmp_path / "catalog.txt"
    path.write_text("Milk (1l)\nČokolada (100g)\n\n", encoding="utf-8")
    assert predict.read_catalog(str(path)) == ["Milk (1l)", "Čokolada (100g)"]
    path.write_bytes(b"Milk\xff")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 4\)"):
        predict.read_catalog(str(path))
    with pytest.raises(InputError, match="cannot be read"):
        predict.read_catalog(str(tmp_path / "none.txt"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        (b"", "is not a GGUF file: it is empty"),
        (b"PK\x03\x04 a zip", "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 5, 5), "is truncated"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1"),
    ],
)
def test_predict_refuses_a_file_that_is_no_model(
    content: bytes | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, catalog = tmp_path / "model.gguf", tmp_path / "catalog.txt"
    catalog.write_text("Milk\n")
    if content is not None:
        model.write_bytes(content)
    code = predict.main(["--model", str(model), "--catalog", str(catalog), "--message", "add milk"])
    assert code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert sentence in stderr


ROWS = Path(__file__).parents[2] / "stages/data/people/english-dev.jsonl"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"--out": "none/out.json"}, "none/out.json cannot be written: name a file in a folder"),
        ({"--out": "."}, "cannot be written: name a file in a folder"),
        ({"--rows": "few.jsonl"}, "few.jsonl holds 19 rows: the measurement needs at least 20"),
        ({"--rows": "none.jsonl"}, "none.jsonl cannot be read"),
        ({"--limit": "19"}, "--limit must be at least 20, not 19"),
        ({"--clients": "0"}, "--clients must be at least 1, not 0"),
        ({"--threads": "0"}, "--threads must be at least 1, not 0"),
        ({}, "model.gguf cannot be read"),
    ],
)
def test_measure_refuses_what_it_cannot_do_before_a_model_is_loaded(
    changed: dict[str, str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ROWS.read_text(encoding="utf-8").splitlines(keepends=True)
    Path("few.jsonl").write_text("".join(lines[:19]), encoding="utf-8")
    given = {"--model": "model.gguf", "--rows": str(ROWS), "--out": "out.json", **changed}
    try:
        code: object = measure.main([word for pair in given.items() for word in pair])
    except SystemExit as leaving:  # argparse's way
        code = leaving.code
    assert code == 2
    stderr = capsys.readouterr().err
    assert sentence in stderr and "Traceback" not in stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_measure_writes_all_or_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    measure._write(out, "{}")
    assert out.read_text() == "{}"
    out.unlink()
    out.mkdir()
    with pytest.raises(InputError, match=r"out\.json cannot be written \("):
        measure._write(out, "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
