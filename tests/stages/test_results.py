"""Results that are committed, of real hosts, are read as those of a run would be."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stages.core import artifact, provenance
from stages.report import card, markdown
from stages.report.ask import ask
from stages.report.check import check
from stages.report.collect import collect
from stages.report.compare.content import compare
from stages.report.gpu.schema import Gpu
from stages.report.gpu.section import section
from stages.report.limits import limits_of
from stages.report.params import Params
from stages.report.schema import Report

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CPU = sorted(RESULTS.glob("bench-cpu-*.json"))
GPU = sorted(RESULTS.glob("bench-gpu-*.json"))


def of_cpu(file: Path, folder: Path) -> Report:
    """The report of a result, as of a measurement without the pipeline."""
    (folder / "metrics.json").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    manifest = provenance.make_manifest(
        stage="bench-cpu",
        params={},
        inputs={},
        files=artifact.inventory(folder),
        metrics={},
        started_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        wall_sec=1.0,
        given={},
    )
    artifact.write_manifest(folder, manifest)
    return collect(Params(), {"bench-cpu": folder})


def test_there_are_results_of_both_kinds() -> None:
    assert CPU and GPU


@pytest.mark.parametrize("file", CPU, ids=lambda file: file.stem)
def test_a_cpu_result(file: Path, tmp_path: Path) -> None:
    report = of_cpu(file, tmp_path)
    check(json.loads(json.dumps(report, allow_nan=False)), Report)
    chosen = report["recommendation"]["variant"]
    assert f"use {chosen}: " in markdown.render(report)
    assert "model-index:" in card.render(report, Params())
    # What was measured must hang together.
    for one in report["variants"]:
        mapped = one["memory"]["mapped"]
        assert one["latency_sec"]["p50_low"] <= one["latency_sec"]["p50"]
        assert one["latency_sec"]["p50"] <= one["latency_sec"]["p50_high"]
        assert mapped["pss_bytes"] is None or mapped["pss_bytes"] <= mapped["peak_rss_bytes"]
    by_size = [one for one in report["variants"] if one["fidelity"] and one["file"]]
    kl_nats = [one["fidelity"]["kl_divergence_nats"] for one in by_size if one["fidelity"]]
    if report["settings"]["kl_rows"]:
        assert kl_nats[0] == min(kl_nats) and kl_nats[-1] == max(kl_nats)  # type: ignore[type-var]
    else:
        assert kl_nats == [None] * len(kl_nats)
    for cost in ("latency", "memory", "size"):
        assert any(point[f"front_{cost}"] for point in report["plots"]["variants"])  # type: ignore[literal-required]
    found = ask(report, limits_of("10s", "p99", "8GB", "", "0.01"))
    assert found["variant"] == chosen
    same = compare([report, copy.deepcopy(report)], ["one", "other"])
    assert not any(pair["exact"]["differs"] or pair["latency"]["differs"] for pair in same["pairs"])


@pytest.mark.parametrize("file", GPU, ids=lambda file: file.stem)
def test_a_gpu_result(file: Path) -> None:
    metrics = json.loads(file.read_text(encoding="utf-8"))
    gpu = section(file, metrics, metrics["packages"], Params().max_accuracy_drop)
    check(json.loads(json.dumps(gpu, allow_nan=False)), Gpu)
    assert gpu["sentence"] and gpu["sentence"] in markdown.gpu_section(gpu)
