"""What `evaluate` says about a baseline from outside."""

from __future__ import annotations

import pytest

from stages.bench_cpu import evaluate, outside
from stages.core.errors import InputError
from stages.intent.metrics import score, summarize
from stages.intent.rows import Answer, Row, parse_answer
from stages.runtime.endpoint import Endpoint, first_object

ROW = Row(("Milk", "Bread"), "two milk", Answer("add", "Milk", 2), "english")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": {"b": 1}}\n```', '{"a": {"b": 1}}'),
        ('Sure: {"a": 1} {"a": 2}', '{"a": 1}'),
        ("no JSON", "no JSON"),
        ("{broken", "{broken"),
    ],
)
def test_the_object_within_prose(text: str, expected: str) -> None:
    assert first_object(text) == expected


def test_the_schema_allows_what_the_format_allows() -> None:
    schema = outside._schema(ROW)
    assert schema["required"] == list(schema["properties"]) == ["action", "product", "quantity"]
    assert schema["properties"]["product"]["enum"] == list(ROW.catalog)
    for action in schema["properties"]["action"]["enum"]:
        parse_answer(Answer(action, "Milk", schema["properties"]["quantity"]["maximum"]).to_json())


def test_the_table_counts_what_an_endpoint_got_wrong() -> None:
    texts = [ROW.completion, "hm", '{"action": "add", "product": "Gold", "quantity": 2}']
    rows = [ROW] * 3
    summary = summarize(rows, [score(row, text) for row, text in zip(rows, texts, strict=True)])
    report = {
        "model": "m.gguf",
        "dataset": "d.jsonl",
        "rows": 3,
        "summary": summary,
        "baselines": {"rules": summary, "endpoint:big": {**summary, "structured": False}},
        "confusion": {},
        "by_slice": {},
        "coverage": [],
        "calibration": {"expected_error": 0.0},
        "worst": [],
    }
    lines = evaluate.table(report).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("baseline: endpoint:big"))
    assert "33.3%" in lines[at]
    assert lines[at + 1] == "  not held to a schema; invalid JSON: 1, invented products: 1"
    assert lines[at - 1].startswith("baseline: rules")


def test_an_endpoint_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InputError, match="OPENAI_BASE_URL is not set"):
        Endpoint.from_environment("big")
