"""Reports by file, folder, profile or key; what is asked of them needs no Docker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from stages.report.collect import collect
from stages.report.params import Params
from tests.commands import run_invoke
from tests.stages.report_inputs import write_inputs


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """A profile `shop` with one report; its manifest is a stage's own."""
    inputs = write_inputs(tmp_path / "inputs")
    folder = tmp_path / "artifacts" / "shop" / "report" / "0123456789ab"
    folder.mkdir(parents=True)
    shutil.copy(inputs["data"] / "manifest.json", folder)
    (folder / "report.json").write_text(json.dumps(collect(Params(), inputs)))
    return tmp_path / "artifacts"


@pytest.mark.parametrize(
    "words",
    [
        ["--profile", "shop"],
        ["--report", "0123456"],
        ["--report", "{artifacts}/shop/report/0123456789ab"],
        ["--report", "{artifacts}/shop/report/0123456789ab/report.json"],
    ],
)
def test_recommend_finds_the_report(artifacts: Path, words: list[str]) -> None:
    words = [word.format(artifacts=artifacts) for word in words]
    done = run_invoke("recommend", *words, "--max-latency", "20ms", artifacts=artifacts)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("On this CPU (Test CPU @ 2.60GHz) use Q4_K_M: ")
    assert "F16 misses --max-latency 20.0 ms (p50) by 1.40 ms (it has 21.4 ms)" in done.stdout


def test_recommend_tells_what_is_in_the_way(artifacts: Path) -> None:
    words = ["recommend", "--profile", "shop", "--max-memory", "50MB"]
    done = run_invoke(*words, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: of 8 variants on Test CPU @ 2.60GHz none meets")
    assert done.stderr.count("\n") == 1
    done = run_invoke(*words, "--json", artifacts=artifacts)
    assert done.returncode == 1 and json.loads(done.stdout)["variant"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--max-memory", "50"], "--max-memory 50: must be a number above 0 with a unit"),
        (["--report", "nowhere"], "--report nowhere: no reports are called so"),
        (["--report", "tasks.py"], "tasks.py is not valid JSON"),
    ],
)
def test_recommend_refuses(artifacts: Path, words: list[str], sentence: str) -> None:
    done = run_invoke("recommend", "--profile", "shop", *words, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--compare", "shop"], "--compare was given 1 times and takes two reports"),
        (["--compare", "shop", "--compare", "nowhere"], "--compare nowhere: no reports"),
    ],
)
def test_compare_refuses_before_it_starts(artifacts: Path, words: list[str], sentence: str) -> None:
    done = run_invoke("report", *words, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (artifacts / "measurements").exists()


def test_export_of_measurements_alone(artifacts: Path, tmp_path: Path) -> None:
    # The manifest of this report names no GGUF artifact.
    words = ["export", "--profile", "shop", "--out", str(tmp_path / "out")]
    done = run_invoke(*words, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (2, "")
    assert "measurements alone have no model to export" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "0123456789ab"], "--model 0123456789ab: no such file"),
        (
            ["--model", "LICENSE", "--baseline", "stages"],
            "--baseline stages: must be hf:FOLDER, a model folder for transformers",
        ),
        (
            ["--model", "LICENSE", "--baseline", "hf:stages"],
            "--baseline hf:stages: no config.json in it, nor in a merged/ of it",
        ),
    ],
)
def test_bench_cpu_refuses_before_it_starts(
    artifacts: Path, words: list[str], sentence: str
) -> None:
    done = run_invoke("bench-cpu", *words, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (artifacts / "measurements").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--profile", "nowhere"], "--profile nowhere: no reports are called so"),
        (["--profile", "shop"], "the model's license is mine: give its text with --license-file"),
        (["--profile", "shop", "--license-file", "no.txt"], "--license-file no.txt: no such file"),
        (
            ["--profile", "shop", "--license-file", "LICENSE", "--out", "stages"],
            "--out stages: exists already; name a new folder",
        ),
        (
            ["--profile", "shop", "--license-file", "LICENSE", "--out", "/nowhere/out"],
            "--out /nowhere/out: its parent folder is not there",
        ),
        (
            ["--profile", "shop", "--license-file", "LICENSE", "--merged"],
            "was made from the gguf artifact 0123456789abcdef, which is not there",
        ),
    ],
)
def test_export_refuses_before_it_starts(
    artifacts: Path, tmp_path: Path, words: list[str], sentence: str
) -> None:
    file = artifacts / "shop/report/0123456789ab/manifest.json"
    manifest = json.loads(file.read_text())
    manifest["params"]["license"] = "mine"
    manifest["inputs"] = {"gguf": {"key": "0123456789abcdef", "stage": "gguf"}}
    file.write_text(json.dumps(manifest))
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    done = run_invoke("export", *words, *out, artifacts=artifacts)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
