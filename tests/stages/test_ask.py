"""Limits as a question: which variant meets them, or what is in the way and by how much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import InputError
from stages.report.ask import ask, main
from stages.report.check import read_report
from stages.report.collect import collect
from stages.report.limits import limits_of
from stages.report.params import Params
from stages.report.schema import Report
from tests.stages.report_inputs import write_inputs


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return collect(Params(), write_inputs(tmp_path))


@pytest.fixture
def file(report: Report, tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return path


def found(report: Report, **given: str) -> dict[str, Any]:
    keys = ("max_latency", "percentile", "max_memory", "max_size", "min_accuracy")
    words = {"percentile": "p50", **given}
    return ask(report, limits_of(*(words.get(key, "") for key in keys)))


def test_without_limits_it_is_the_reports_own_recommendation(report: Report) -> None:
    assert found(report)["variant"] == report["recommendation"]["variant"] == "Q4_K_M"


def test_of_those_that_meet_all_the_reports_rule_chooses(report: Report) -> None:
    one = found(report, max_latency="50ms", max_memory="300MB", min_accuracy="0.98")
    assert (one["variant"], one["file"]) == ("Q4_K_M", "Cartwright-Intent-7.3M-v1.0-Q4_K_M.gguf")
    assert "and so do F16, Q8_0, Q6_K, Q5_K_M and Q4_0" in one["why"][0]
    missed = {one["name"]: one["misses"] for one in one["variants"] if not one["meets"]}
    assert set(missed) == {"Q3_K_M", "Q2_K"}
    (over,) = missed["Q2_K"]
    assert over["over"] == pytest.approx(0.15) and over["value"] == pytest.approx(0.83)
    # What is left decides: without the most accurate, a less accurate one is near enough.
    assert found(report, max_size="4.6MB")["variant"] == "Q4_0"
    assert found(report, max_memory="83.5MB")["variant"] == "Q3_K_M"
    assert found(report, min_accuracy="98.7%")["variant"] == "Q8_0"


def test_an_accuracy_that_the_rows_do_not_prove_is_said(report: Report) -> None:
    careful = found(report, min_accuracy="0.98")["why"][-1]
    assert careful.startswith("Careful: on 900 rows its accuracy is known to 97.5–99.2 %")
    assert not any("Careful" in one for one in found(report, min_accuracy="0.97")["why"])


def test_the_limit_in_the_way_and_the_nearest(report: Report) -> None:
    one = found(report, max_latency="10ms", min_accuracy="0.98")
    assert one["variant"] is None and one["why"] == []
    assert one["sentence"] == (
        "of 8 variants on Test CPU @ 2.60GHz none meets --max-latency 10.0 ms (p50): the nearest, "
        "Q4_0, misses --max-latency 10.0 ms (p50) by 5.90 ms (it has 15.9 ms)"
    )
    at_p99 = found(report, max_latency="20ms", percentile="p99")
    assert "Q4_0, misses --max-latency 20.0 ms (p99) by 7.03 ms" in at_p99["sentence"]


def test_limits_that_exclude_each_other(report: Report) -> None:
    one = found(report, max_memory="83.5MB", min_accuracy="0.98")
    assert one["variant"] is None
    assert "none meets --max-memory 83.5 MB and --min-accuracy 98.0 % at once" in one["sentence"]
    # Q4_0 is 0.5 MB of 83.5 too large; Q3_K_M lacks 2.3 points of 98.
    assert one["sentence"].endswith(
        "the nearest, Q4_0, misses --max-memory 83.5 MB by 500 KB (it has 84.0 MB)"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_latency": "50"}, "--max-latency 50: must be a number above 0 with a unit"),
        ({"max_latency": "50 mb"}, "one of us, µs, ms, s"),
        ({"max_latency": "0ms"}, "above 0"),
        ({"max_latency": "-5ms"}, "--max-latency -5ms"),
        ({"max_memory": "300ms"}, "--max-memory 300ms: must be"),
        ({"max_size": "1e3MB"}, "--max-size"),
        ({"min_accuracy": "98"}, "--min-accuracy 98: must be a share above 0 and up to 1"),
        ({"min_accuracy": "most"}, "--min-accuracy most"),
        ({"percentile": "p42"}, "--percentile must be one of p50, p90, p99"),
    ],
)
def test_bad_limits(report: Report, given: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        found(report, **given)


def test_units() -> None:
    values = [limits_of(text, "p50", "", "", "")[0].bound for text in ("50ms", "0.05 s", "50000us")]
    assert values == pytest.approx([0.05] * 3)
    sizes = [limits_of("", "p50", text, "", "")[0].bound for text in ("1.5GB", "1.5GiB", "7B")]
    assert sizes == [1.5e9, 1.5 * 2**30, 7]
    assert limits_of("", "p50", "", "", "98%")[0].bound == pytest.approx(0.98)


def test_the_command_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--report", str(file), "--max-latency", "50ms"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("On this CPU (Test CPU @ 2.60GHz) use Q4_K_M: 98.6 % exact match")
    assert printed.err == ""
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["variant"] == "Q4_K_M"
    assert main([*words, "--max-memory", "1KB"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith("error: of 8 variants")
    assert main([*words, "--max-memory", "1KB", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["variant"] is None
    assert main([*words, "--max-memory", "lots"]) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda one: one.update(schema=1), "is no report of schema 2 but one of schema 1"),
        (lambda one: one.pop("schema"), "is no report of schema 2 but something else"),
        (lambda one: one.pop("host"), r"report.json: host is missing"),
        (lambda one: one.update(extra=1), "report.json: extra is unknown"),
        (
            lambda one: one["variants"][2]["latency_sec"].update(p50="fast"),
            r"variants\[2\].latency_sec.p50 must be a number",
        ),
        (
            lambda one: one["plots"]["variants"][0].update(exact=float("nan")),
            r"plots.variants\[0\].exact must be a number",
        ),
        (lambda one: one.update(variants={}), "variants must be a list"),
        (lambda one: one["plots"].update(confidence=3), "plots.confidence must be an object"),
        (lambda one: one["noise"].update(p50_sec=[True]), r"noise.p50_sec\[0\] must be a number"),
    ],
)
def test_a_file_that_is_no_report(report: Report, file: Path, change: Any, sentence: str) -> None:
    whole = json.loads(json.dumps(report))
    change(whole)
    file.write_text(json.dumps(whole))
    with pytest.raises(InputError, match=sentence):
        read_report(file)


def test_a_report_by_its_folder(file: Path) -> None:
    assert read_report(file.parent) == read_report(file)
    with pytest.raises(InputError, match="nowhere cannot be read"):
        read_report(file.parent / "nowhere")
    file.write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        read_report(file)
