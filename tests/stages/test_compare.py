"""Two reports side by side: what counts as a difference, and what is said of it."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import InputError
from stages.report.check import check
from stages.report.collect import collect
from stages.report.compare import page
from stages.report.compare.content import compare, difference_of_rates, ratio_of_medians
from stages.report.compare.schema import Comparison
from stages.report.params import Params
from stages.report.schema import Report
from tests.stages.report_inputs import GGUF, latency, rate, variant, write_inputs


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return collect(Params(), write_inputs(tmp_path))


def held(first: Report, second: Report) -> dict[str, Any]:
    found = compare([first, second], ["before", "after"])
    check(json.loads(json.dumps(found)), Comparison)
    return {**found, "by_name": {pair["name"]: pair for pair in found["pairs"]}}


def changed(report: Report, name: str, **values: Any) -> Report:
    other = copy.deepcopy(report)
    next(one for one in other["variants"] if one["name"] == name).update(values)  # type: ignore[typeddict-item]
    return other


def test_a_report_is_like_itself(report: Report) -> None:
    found = held(report, copy.deepcopy(report))
    assert len(found["pairs"]) == len(GGUF) + 1
    assert not any(
        pair[key]["differs"]
        for pair in found["pairs"]
        for key in ("exact", "latency", "memory", "size")
    )
    assert "Exact match: no difference beyond the noise, for any." in found["sentences"]
    assert found["same_host"] is True and found["same_rows"] is True
    assert {pair["same_file"] for pair in found["pairs"]} == {True, None}  # the baseline: no file


def test_differences_are_told_from_noise(report: Report) -> None:
    accuracy = copy.deepcopy(report["variants"][0]["accuracy"])
    assert accuracy
    accuracy["exact"] = rate(0.90, 900)  # type: ignore[typeddict-item]
    other = changed(report, "F16", accuracy=accuracy, latency_sec=latency(0.030))
    # The A/A noise is 1.85 %, so 4.6 % are let pass.
    other = changed(other, "Q8_0", latency_sec=latency(0.0179 * 1.04))
    other = changed(other, "Q6_K", latency_sec=latency(0.0188 / 1.06))
    other = changed(other, "Q2_K", peak_rss_bytes=90_000_000)
    found = held(report, other)
    by_name = found["by_name"]
    assert by_name["F16"]["exact"]["differs"] and by_name["F16"]["exact"]["high"] < 0
    assert [name for name, pair in by_name.items() if pair["latency"]["differs"]] == ["F16", "Q6_K"]
    assert [name for name, pair in by_name.items() if pair["memory"]["differs"]] == ["Q2_K"]
    told = " ".join(found["sentences"])
    assert "Exact match differs: F16 −8.8 points; within the noise: Q8_0, Q6_K" in told
    assert "Median latency differs: F16 +40 % and Q6_K −6 %; within the noise: Q8_0," in told


def test_another_machine_and_other_rows_are_said(report: Report) -> None:
    other = copy.deepcopy(report)
    other["host"]["cpu_model"] = "Other CPU"
    other["settings"]["rows"] = 100
    found = held(report, other)
    assert (found["same_host"], found["same_rows"], found["latency_by"]) == (
        False, False, "intervals",
    )  # fmt: skip
    told = " ".join(found["sentences"])
    assert "measured on different machines" in told and "answered different rows" in told
    text = page.render(compare([report, other], ["here", "there"]))
    assert "| CPU | Test CPU @ 2.60GHz | Other CPU |" in text
    # Whether a file of rows is the same, only its hash can say.
    other = copy.deepcopy(report)
    other["lineage"] = []
    assert held(report, other)["same_rows"] is None
    assert "answered different rows" not in " ".join(held(report, other)["sentences"])


def test_variants_of_one_side_only(report: Report, tmp_path: Path) -> None:
    few = collect(Params(), write_inputs(tmp_path / "few", [variant(*GGUF[0]), variant(*GGUF[4])]))
    found = compare([report, few], ["many", "few"])
    assert [pair["name"] for pair in found["pairs"]] == ["F16", "Q4_K_M"]
    assert page.only(found) == [
        "Only many has Q2_K, Q3_K_M, Q4_0, Q5_K_M, Q6_K, Q8_0, transformers FP32."
    ]
    alone = collect(Params(), write_inputs(tmp_path / "alone", [variant(*GGUF[0])]))
    for one in alone["variants"]:
        one["name"] = "mine"
    with pytest.raises(InputError, match="no variant is in both"):
        compare([report, alone], ["many", "mine"])


def test_like_names_are_told_apart(report: Report) -> None:
    found = compare([report, report], ["report", "report"])
    assert [side["label"] for side in found["sides"]] == ["report (A)", "report (B)"]


def test_a_difference_of_rates_is_newcombes() -> None:
    # Source: Newcombe 1998, table II, 56/70 against 48/80 by method 10: 0.0524 to 0.3339.
    found = difference_of_rates(rate(48 / 80, 80), rate(56 / 70, 70))  # type: ignore[arg-type]
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert found["differs"]


def test_equal_models_seldom_differ() -> None:
    draw = random.Random(5)

    def measured() -> Any:
        return rate(sum(draw.random() < 0.9 for _ in range(300)) / 300, 300)

    differing = sum(difference_of_rates(measured(), measured())["differs"] for _ in range(1000))
    assert 20 <= differing <= 80  # one in twenty, more or less


def test_a_ratio_of_medians() -> None:
    by_noise = ratio_of_medians(latency(0.010), latency(0.011), 0.05)  # type: ignore[arg-type]
    assert by_noise["change"] == pytest.approx(0.1)
    assert (by_noise["low"], by_noise["high"]) == pytest.approx((1.1 / 1.05 - 1, 1.1 * 1.05 - 1))
    assert by_noise["differs"]
    by_interval = ratio_of_medians(latency(0.010), latency(0.0105), None)  # type: ignore[arg-type]
    assert by_interval["low"] == pytest.approx(1.05 * 0.97 / 1.03 - 1)
    assert not by_interval["differs"]


def test_markdown_has_every_figure(report: Report) -> None:
    other = changed(report, "F16", latency_sec=latency(0.030))
    text = page.render(compare([report, other], ["before", "after"]))
    assert text.startswith("# Two reports side by side\n\nafter against before, 9 variants")
    row = "|  | Median latency | 21.4 ms (20.8–22.0) | 30.0 ms (29.1–30.9) | +40 % |"
    assert row in text
    assert "| F16 | Exact match | 98.8 % (97.8–99.3) | 98.8 % (97.8–99.3) | +0.0 points |" in text
    assert "|  | File | 14.7 MB | 14.7 MB | 0 % | – | the same file |" in text
