"""From GGUF files to a report, a comparison and a folder for the hub, by the bench image alone."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from stages.report.check import read_report
from tests.commands import ROOT, one_artifact, run_invoke

LITTLE = ("rows=12", "free_rows=2", "hf_rows=4", "latency_rows=4", "rounds=2", "kl_rows=2")


@pytest.fixture(scope="module")
def measured(tiny: Path) -> Path:
    """The report of the tiny profile's files and their baseline, measured by themselves."""
    words = [word for value in LITTLE for word in ("--set", value)]
    words += ["--model", one_artifact(tiny, "gguf").name]
    words += ["--baseline", f"hf:{one_artifact(tiny, 'train')}"]
    rows = one_artifact(tiny, "data") / "test.jsonl"
    done = run_invoke("bench-cpu", *words, "--dataset", str(rows), "--json", artifacts=tiny)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["report"])


def test_an_artifact_is_measured_beside_its_baseline(measured: Path) -> None:
    report = read_report(measured)
    engines = {one["name"]: one["engine"] for one in report["variants"]}
    assert engines["transformers FP32"] == "transformers" and "F16" in engines
    assert report["reference"] == "F16"
    near = {one["name"]: one["fidelity"] for one in report["variants"]}
    assert near["F16"] is None and near["transformers FP32"]
    # The same weights in another engine: nearer than any quantization.
    others = [one for name, one in near.items() if one and name != "transformers FP32"]
    kl_nats = [one["kl_divergence_nats"] for one in others]
    assert near["transformers FP32"]["kl_divergence_nats"] < min(kl_nats)
    assert report["rerun"] == ["invoke bench-cpu --model MODEL.gguf"]
    assert {step["stage"] for step in report["lineage"]} == {"bench-cpu"}
    assert (measured / "report.html").is_file()


def test_the_pipelines_report_is_of_the_same_kind(tiny: Path) -> None:
    report = read_report(one_artifact(tiny, "report"))
    assert report["plots"]["slices"] and report["plots"]["learning_curve"]
    assert report["rerun"][0] == "invoke run --profile tiny"


def test_it_answers_to_limits(tiny: Path, measured: Path) -> None:
    words = ["recommend", "--report", str(measured), "--max-memory", "2GB", "--json"]
    done = run_invoke(*words, artifacts=tiny)
    assert done.returncode == 0 and json.loads(done.stdout)["variant"]
    done = run_invoke("recommend", "--profile", "tiny", "--max-memory", "1MB", artifacts=tiny)
    assert done.returncode == 1 and "misses --max-memory 1.00 MB by" in done.stderr


def test_two_measurements_are_compared(tiny: Path, measured: Path) -> None:
    words = ["report", "--compare", "tiny", "--compare", str(measured)]
    done = run_invoke(*words, artifacts=tiny)
    assert done.returncode == 0, done.stderr
    page = Path(done.stdout.splitlines()[-1])
    assert page.name == "comparison.html" and page.is_relative_to(tiny)
    found = json.loads((page.parent / "comparison.json").read_text())
    # A file that is measured by itself has no artifact that says which rows it holds.
    assert found["same_host"] is True and found["same_rows"] is None
    assert [side["label"] for side in found["sides"]] == ["tiny", measured.name]
    assert page.stat().st_uid == os.getuid()


def test_the_hub_folder_is_whole(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "hub"
    words = ["export", "--profile", "tiny", "--out", str(out), "--merged", "--variants", "all"]
    done = run_invoke(*words, artifacts=tiny)
    assert done.returncode == 0, done.stderr
    names = {one.name for one in out.iterdir()}
    assert {"README.md", "Modelfile", "LICENSE", "config.json", "model.safetensors"} <= names
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=out, check=False).returncode == 0
    gguf = one_artifact(tiny, "gguf")
    for file in out.glob("*.gguf"):
        assert file.read_bytes() == (gguf / file.name).read_bytes()
    again = run_invoke(*words, artifacts=tiny)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_the_image_alone_does_the_same(tiny: Path, tmp_path: Path) -> None:
    """Nothing of ours but the image: no checkout, no invoke, no file of parameters."""
    tmp_path.chmod(0o777)
    (tmp_path / "p.json").write_text(json.dumps({"rows": 4, "rounds": 1, "latency_rows": 2}))
    run = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
    run += ["--cap-drop", "ALL", "--user", str(os.getuid()), "--volume", f"{tmp_path}:/out"]
    run += ["--volume", f"{one_artifact(tiny, 'gguf')}:/gguf:ro", "cartwright/bench:local"]
    bench = ["stages.bench_cpu", "--params", "/out/p.json", "--input", "gguf=/gguf"]
    report = ["stages.report", "--input", "bench-cpu=/out/bench"]
    for words, out in ((bench, "/out/bench"), (report, "/out/report")):
        done = subprocess.run(
            [*run, *words, "--out", out], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert read_report(tmp_path / "report")["settings"]["dataset"] == "built-in sample"
