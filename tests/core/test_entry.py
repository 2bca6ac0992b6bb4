"""A stage's command line, with real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.core import artifact
from tests.core.toy import Project, clean_environment


def words(project: Project, tmp_path: Path, **params: object) -> Path:
    out = tmp_path / "words"
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"text": "one two", **params}), encoding="utf-8")
    done = project.stage("words", "--params", str(file), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def count(project: Project, tmp_path: Path, **params: object) -> subprocess.CompletedProcess[str]:
    source = words(project, tmp_path)
    file = tmp_path / "count.json"
    file.write_text(json.dumps(params), encoding="utf-8")
    out = tmp_path / "out" / "count"
    return project.stage(
        "count", "--params", str(file), "--input", f"words={source}", "--out", str(out)
    )


def test_a_finished_stage_says_where_it_came_from(project: Project, tmp_path: Path) -> None:
    done = count(project, tmp_path, seconds=0, seed=5)
    assert done.returncode == 0, done.stderr
    manifest = artifact.read_manifest(tmp_path / "out" / "count")
    source = artifact.read_manifest(tmp_path / "words")
    assert manifest["metrics"] == {"words": 2}
    assert manifest["params"] == {"seconds": 0.0, "fail": "", "scales": [1.0], "seed": 5}
    assert manifest["seed"] == 5
    assert manifest["inputs"]["words"]["content_sha256"] == source["content_sha256"]
    assert manifest["files"]["count.json"]["size_bytes"] == 1
    assert len(manifest["files"]) == 21
    assert manifest["host"]["usable_cores"] >= 1
    assert manifest["peak_rss_bytes"] > 1_000_000
    assert manifest["packages"]["PyYAML"]
    assert artifact.damage(tmp_path / "out" / "count", manifest, rehash=True) == []


@pytest.mark.parametrize(
    ("fail", "code", "sentence"),
    [
        ("input", 2, "error: rows.jsonl:3: quantity must be a whole number from 1, not 1.5\n"),
        ("gate", 1, "error: parity: row 7 differs\n"),
    ],
)
def test_a_known_error_is_one_sentence(
    project: Project, tmp_path: Path, fail: str, code: int, sentence: str
) -> None:
    done = count(project, tmp_path, fail=fail)
    assert (done.returncode, done.stderr) == (code, sentence)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bug_keeps_its_traceback_and_leaves_nothing(project: Project, tmp_path: Path) -> None:
    done = count(project, tmp_path, fail="bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ValueError: a bug of ours\n")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("fail", ["disk", "wrapped disk"])
def test_a_full_disk_is_one_sentence(project: Project, tmp_path: Path, fail: str) -> None:
    done = count(project, tmp_path, fail=fail)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no space left on the disk that holds ")
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_package_is_named(project: Project, tmp_path: Path) -> None:
    done = count(project, tmp_path, fail="import")
    assert done.returncode == 2
    assert "the package package_that_nobody_has is not installed here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"seconds": "1"}, "count.seconds: must be a number, not the str '1'"),
        ({"seconds": True}, "count.seconds: must be a number, not the bool True"),
        ({"seconds": -1}, "count.seconds: must be 0 or more, not -1.0"),
        ({"seed": 1.5}, "count.seed: must be a whole number, not the float 1.5"),
        ({"scales": 2.0}, "count.scales: must be a list of float, not the float 2.0"),
        ({"sed": 1}, "count.sed: unknown parameter; the stage has: fail, scales, seconds, seed"),
    ],
)
def test_wrong_parameters(
    project: Project, tmp_path: Path, params: dict[str, object], sentence: str
) -> None:
    done = count(project, tmp_path, **params)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/count.json: {sentence}\n"
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_refused(project: Project, tmp_path: Path) -> None:
    out = words(project, tmp_path)
    before = sorted(out.iterdir())
    done = project.stage("words", "--params", str(tmp_path / "words.json"), "--out", str(out))
    assert done.returncode == 2
    assert done.stderr == f"error: --out {out}: exists already; name a new folder or delete it\n"
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("given", ["words", "words=", "words={tmp}/nowhere"])
def test_a_wrong_input(project: Project, tmp_path: Path, given: str) -> None:
    params = tmp_path / "p.json"
    params.write_text("{}", encoding="utf-8")
    pair = given.format(tmp=tmp_path)
    out = str(tmp_path / "o")
    done = project.stage("count", "--params", str(params), "--input", pair, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --input {pair}: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(project: Project, tmp_path: Path, number: signal.Signals) -> None:
    source = words(project, tmp_path)
    params = tmp_path / "count.json"
    params.write_text('{"seconds": 60}', encoding="utf-8")
    out = tmp_path / "out" / "count"
    options = ["--params", str(params), "--input", f"words={source}", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.count", *options],
        cwd=project.root,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counting\n"
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    process.stdout.close()
    assert list(out.parent.iterdir()) == []


def test_a_declared_output_must_be_there(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "fail: output")
    done = project.run()
    assert done.returncode == 1
    assert "count ended without writing count.json" in done.stderr
    assert project.leftovers() == []


def test_without_parameters_it_is_the_defaults(project: Project, tmp_path: Path) -> None:
    source = words(project, tmp_path)
    command = ["count", "--input", f"words={source}", "--out", str(tmp_path / "out" / "count")]
    done = project.stage(*command)
    assert done.returncode == 0, done.stderr
    params = artifact.read_manifest(tmp_path / "out" / "count")["params"]
    assert params == {"seconds": 0.0, "fail": "", "scales": [1.0], "seed": 0}
    # Where one has no default, its name is told.
    done = project.stage("words", "--out", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: without --params: words.text")
    assert done.stderr.count("\n") == 1
