"""The report without its drawing: recommendation, content, Markdown, model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.errors import InputError
from stages.report import card, figures, markdown
from stages.report.check import check
from stages.report.collect import collect
from stages.report.params import Params
from stages.report.recommend import compare, recommend
from stages.report.schema import Report, Variant
from tests.stages.report_inputs import GGUF, baseline, metrics, variant, write_inputs


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return collect(Params(), write_inputs(tmp_path))


def variants(*records: dict[str, Any]) -> list[Variant]:
    return [record | {"sha256": None, "recommended": False} for record in records]  # type: ignore[misc]


def chosen(*records: dict[str, Any], max_drop: float = 0.005, noise: float = 0.0) -> str:
    return recommend(variants(*records), max_drop, noise, "Test CPU")["variant"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max_accuracy_drop": -0.1}, "max_accuracy_drop"),
        ({"max_accuracy_drop": 1.0}, "max_accuracy_drop"),
        ({"title": " "}, "title"),
        ({"languages": ()}, "languages"),
        ({"languages": ("English",)}, "languages"),
    ],
)
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Params(**values)


# ------------------------------------------------------------------ recommendation


def test_the_fastest_that_is_accurate_enough() -> None:
    records = [variant(*one) for one in GGUF]
    # Q4_0 is faster, and 0.8 points less accurate.
    assert chosen(*records) == "Q4_K_M"
    assert chosen(*records, max_drop=0.01) == "Q4_0"
    assert chosen(*records, max_drop=0.0) == "Q8_0"


def test_within_the_noise_the_smaller_wins() -> None:
    fast = variant("fast", 8.0, 0.99, 10.0, 90.0)
    small = variant("small", 4.0, 0.99, 10.2, 80.0)
    slow = variant("slow", 2.0, 0.99, 11.0, 70.0)
    assert chosen(fast, small, slow) == "fast"
    assert chosen(fast, small, slow, noise=0.03) == "small"
    # The noise counts from the fastest, so it does not add up along a chain.
    assert chosen(fast, small, slow, noise=0.09) == "small"
    # Peaks within two percent are alike; then the file decides.
    light = variant("light", 8.0, 0.99, 10.1, 79.0)
    assert chosen(fast, light, small, noise=0.03) == "small"
    assert chosen(fast, light, small | {"peak_rss_bytes": 81_000_000}, noise=0.03) == "light"


def test_a_drop_of_exactly_the_limit_is_accepted() -> None:
    assert (
        chosen(variant("a", 8.0, 0.9, 20.0, 9.0), variant("b", 4.0, 0.89, 10.0, 9.0), max_drop=0.01)
        == "b"
    )


def test_the_baseline_is_never_recommended() -> None:
    fast_baseline = baseline(p50_ms=1.0, peak_mb=1.0)
    assert chosen(variant("only", 8.0, 0.5, 20.0, 90.0), fast_baseline) == "only"
    with pytest.raises(InputError, match="no GGUF variant"):
        chosen(fast_baseline)


def test_reason_names_the_numbers_and_the_runner_up() -> None:
    found = recommend(variants(*(variant(*one) for one in GGUF)), 0.005, 0.0, "Test CPU")
    assert found["sentence"].startswith("On this CPU (Test CPU) use Q4_K_M: 98.6 % exact match")
    assert "16.2 ms" in found["sentence"]
    assert found["runner_up"] == "Q8_0"
    assert "Q8_0 is the most accurate with 98.8 %: 0.2 points more" in found["reason"]
    why = {one["name"]: one for one in found["verdicts"]}
    assert why["Q4_K_M"]["why"] == "recommended"
    assert not why["Q2_K"]["accepted"]
    assert "15.8 points below Q8_0" in why["Q2_K"]["why"]
    assert "beyond the intervals" in why["Q2_K"]["why"]


def test_reason_says_how_a_tie_was_broken() -> None:
    fast = variant("fast", 8.0, 0.99, 10.0, 90.0)
    small = variant("small", 4.0, 0.99, 10.2, 80.0)
    found = recommend(variants(fast, small), 0.005, 0.03, "Test CPU")
    assert found["reason"] == (
        "No GGUF variant is more accurate. fast is as fast within the noise of 3.0 %; small needs "
        "the least memory."
    )
    found = recommend(variants(fast | {"peak_rss_bytes": 80_000_000}, small), 0.005, 0.03, "CPU")
    assert found["reason"].endswith("small is the smallest of the lightest.")


def test_a_single_variant_needs_no_comparison() -> None:
    found = recommend(variants(variant("Q8_0", 8.0, 0.9, 20.0, 90.0)), 0.005, 0.0, "Test CPU")
    assert (found["variant"], found["runner_up"]) == ("Q8_0", None)
    assert found["reason"] == "No GGUF variant is more accurate."


def test_comparison_takes_the_fp16_baseline_and_its_free_decoding() -> None:
    fp16 = baseline(p50_ms=100.0, peak_mb=600.0)
    fp16 |= {"name": "transformers FP16", "encoding": "FP16"}
    ours = variant("Q4_K_M", 5.0, 0.98, 10.0, 60.0)
    found = compare(variants(ours, baseline(p50_ms=200.0), fp16), "Q4_K_M")
    assert found is not None
    assert found["baseline"] == "transformers FP16"
    assert found["requests_ratio"] == pytest.approx(24.0)
    assert found["known_ratio"] == pytest.approx(60.0)
    assert found["memory_change"] == pytest.approx(-0.9)
    said = markdown.comparison_sentence(found)
    assert "24.0 times" in said and "60.0 times where the catalog is known" in said
    older = ours | {"latency_known_sec": None}
    found = compare(variants(older, fp16 | {"latency_free_sec": None}), "Q4_K_M")
    assert found is not None and found["known_ratio"] is None
    assert found["requests_ratio"] == pytest.approx(10.0)
    assert "known" not in markdown.comparison_sentence(found)
    assert compare(variants(ours), "Q4_K_M") is None


# ------------------------------------------------------------------ figures


def test_spelling() -> None:
    assert figures.seconds(0.0123) == "12.3 ms"
    assert figures.seconds(0.9996) == "1.00 s"
    assert figures.seconds(250) == "4 min 10 s"
    assert figures.seconds(7500) == "2 h 5 min"
    assert figures.size(999) == "999 B"
    assert figures.size(999_600) == "1.00 MB"
    assert figures.size(5_130_000) == "5.13 MB"
    assert figures.points(0.01) == "1.0 point"
    assert figures.change(-0.9) == "−90 %"
    assert figures.per_second(None) == "–"


# ------------------------------------------------------------------ content


def test_report_holds_every_plots_data(report: Report) -> None:
    check(report, Report)
    assert [one["name"] for one in report["plots"]["variants"]] == [
        one["name"] for one in report["variants"]
    ]
    assert report["variants"][-1]["engine"] == "transformers"
    assert [one["name"] for one in report["variants"] if one["recommended"]] == ["Q4_K_M"]
    assert len(report["plots"]["learning_curve"]) == 30
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_lineage_goes_from_the_data_to_the_measurements(report: Report) -> None:
    assert [step["stage"] for step in report["lineage"]] == [
        "data", "base", "train", "gguf", "bench-cpu",
    ]  # fmt: skip
    keys = {step["stage"]: step["key"] for step in report["lineage"]}
    gguf = report["lineage"][3]
    assert gguf["inputs"] == {"train": keys["train"], "data": keys["data"]}
    hashes = {file["name"]: file["sha256"] for file in gguf["files"]}
    for one in report["variants"][:-1]:
        assert one["sha256"] == hashes[str(one["file"])]


def test_markdown_says_what_the_report_says(report: Report) -> None:
    text = markdown.render(report)
    assert text.startswith(
        "# Which variant to use\n\n**On this CPU (Test CPU @ 2.60GHz) use Q4_K_M"
    )
    assert "| **Q4_K_M** | 98.6 % | 97.5–99.2 | 16.2 ms |" in text
    assert "31.7 times the requests per second of transformers FP32" in text
    assert "The paper (arXiv 2510.21970) reports up to 18 times" in text
    for title in ("## Variants", "### Languages", "## Parity", "## Lineage", "## Host"):
        assert f"\n{title}\n" in text
    columns = {line.count(" | ") for line in text.splitlines() if line.startswith("| **Q4_K_M")}
    head = next(line for line in text.splitlines() if line.startswith("| Variant | Exact"))
    assert columns == {head.count(" | ")}


def test_model_card_follows_the_hubs_conventions(report: Report) -> None:
    params = Params(base_model="someone/some-base", languages=("en",))
    _, front, body = card.render(report, params).split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "apache-2.0"
    assert metadata["language"] == ["en"]
    assert metadata["base_model"] == "someone/some-base"
    assert metadata["pipeline_tag"] == "text-generation"
    (model,) = metadata["model-index"]
    assert len(model["results"]) == len(GGUF)
    for result in model["results"]:
        assert {"task", "dataset", "metrics"} <= set(result)
        assert {"type", "name"} <= set(result["dataset"])
        assert all({"type", "value"} <= set(one) for one in result["metrics"])
    exact = {one["task"]["name"]: one["metrics"][0]["value"] for one in model["results"]}
    assert exact["Shopping intent (Q4_K_M)"] == pytest.approx(887 / 900, abs=1e-6)
    for heading in ("## Intended use", "## Limits", "## Training data", "## Results"):
        assert heading in body
    assert "base_model" not in yaml.safe_load(card.render(report, Params()).split("---\n")[1])


def test_markdown_says_what_the_probability_is_worth(report: Report) -> None:
    text = markdown.render(report)
    assert "right answers are 1.2 points apart on average" in text
    assert "| 90 % | 0.5500 | 99.0 % |" in text
    assert "| 0.9 to 1.0 | 0.990 | 99.0 % |" in text


def test_a_model_without_probabilities_is_reported_too(tmp_path: Path) -> None:
    record = variant(*GGUF[4]) | {"confidence": None}
    report = collect(Params(), write_inputs(tmp_path, [record]))
    assert report["plots"]["confidence"] is None
    assert "How sure the model is" not in markdown.render(report)


def test_measurements_alone_are_enough(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, [variant(*GGUF[4])])
    report = collect(Params(), {"bench-cpu": inputs["bench-cpu"]})
    assert report["comparison"] is None
    assert report["plots"]["learning_curve"] == []
    assert markdown.render(report)
    assert "Not recorded" in card.render(report, Params())


def test_model_card_says_whose_rows_it_learnt_from(report: Report) -> None:
    assert "3,000 train, 300 validation, 900 test (seed 7, key `" in card.render(report, Params())
    assert "of the same generator that made its training rows" in card.render(report, Params())
    report["data"]["source"] = "import"
    text = card.render(report, Params())
    assert "Rows imported from a file of the user's own: 3,000 train" in text
    assert "generator" not in text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema": 1}, "metrics.json: not metrics of schema 2"),
        ({"variants": []}, "metrics.json: lists no variants"),
        ({"variants": [{"name": "Q8_0"}]}, "variant 1 is not as bench-cpu writes it"),
        ({"variants": [baseline()]}, "no GGUF variant"),
        ({"variants": [variant(*GGUF[0]), variant(*GGUF[0])]}, "two variants have the same name"),
        (
            {"variants": [variant(*GGUF[0]) | {"accuracy": None, "free": None}]},
            "the variant F16 has no accuracy",
        ),
        ({"variants": [variant(*GGUF[0]) | {"peak_rss_bytes": 0}]}, "not above 0"),
    ],
)
def test_bad_metrics(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    inputs = write_inputs(tmp_path)
    (inputs["bench-cpu"] / "metrics.json").write_text(json.dumps(metrics() | change))
    with pytest.raises(InputError, match=sentence):
        collect(Params(), inputs)


def test_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--input bench-cpu=DIR is missing"):
        collect(Params(), {})
    inputs = write_inputs(tmp_path)
    (inputs["train"] / "learning_curve.json").unlink()
    with pytest.raises(InputError, match=r"learning_curve\.json cannot be read"):
        collect(Params(), inputs)
