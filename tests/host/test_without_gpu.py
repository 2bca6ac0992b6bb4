"""Stages with an image for GPUs alone: part of a run, or left out where there is no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.core.toy import Project

TWICE = """\
  twice:
    module: count
    image: {gpu: toy-gpu}
    device: gpu
    inputs: {words: words}
    outputs: [count.json]
  after:
    module: count
    image: {cpu: toy}
    inputs: {words: words, twice: twice}
    outputs: [count.json]
"""
LEFT_OUT = "left out, for want of a GPU: twice, after ("
NO_RUNTIME = "Docker has no NVIDIA runtime here; see `invoke doctor`"


@pytest.fixture
def no_gpu(tmp_path: Path) -> dict[str, str]:
    """A machine with neither Docker nor NVIDIA's driver."""
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin"), "DOCKER_HOST": ""}


@pytest.fixture
def gpu(no_gpu: dict[str, str]) -> dict[str, str]:
    """The same with a driver that shows one GPU."""
    program = Path(no_gpu["PATH"]) / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.65.06, 81559 MiB'\n", encoding="utf-8")
    program.chmod(0o755)
    return no_gpu


@pytest.fixture
def wired(project: Project) -> Project:
    """`twice` is for GPUs alone, `after` needs it, `sum` can do without."""
    project.replace(
        "stages/pipeline.yaml", "  sum:\n", f"{TWICE}  sum:\n    optional: {{t: twice}}\n"
    )
    return project


def test_status_says_what_is_left_out(wired: Project, no_gpu: dict[str, str]) -> None:
    done = wired.invoke("status", "--profile", "toy", **no_gpu)
    assert done.returncode == 0, done.stderr
    first, *table = done.stdout.splitlines()
    assert first == f"{LEFT_OUT}{NO_RUNTIME})"
    assert [line.split()[0] for line in table] == ["stage", "words", "count", "sum"]


def test_status_for_programs_keeps_to_what_runs(wired: Project, no_gpu: dict[str, str]) -> None:
    done = wired.invoke("status", "--profile", "toy", "--json", **no_gpu)
    assert [one["stage"] for one in json.loads(done.stdout)] == ["words", "count", "sum"]
    [event] = [json.loads(line) for line in done.stderr.splitlines()]
    assert event == {"event": "message", "text": f"{LEFT_OUT}{NO_RUNTIME})"}


def test_a_run_makes_the_rest(wired: Project, no_gpu: dict[str, str]) -> None:
    done = wired.invoke("run", "--profile", "toy", "--local", **no_gpu)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{LEFT_OUT}this machine shows none to `nvidia-smi`)\n")
    assert sorted(one["stage"] for one in wired.manifests().values()) == ["count", "sum", "words"]


def test_what_was_made_before_stays_fresh(project: Project, no_gpu: dict[str, str]) -> None:
    assert project.invoke("run", "--profile", "toy", "--local", **no_gpu).returncode == 0
    project.replace(
        "stages/pipeline.yaml", "  sum:\n", f"{TWICE}  sum:\n    optional: {{t: twice}}\n"
    )
    done = project.invoke("status", "--profile", "toy", "--local", "--json", **no_gpu)
    assert {one["state"] for one in json.loads(done.stdout)} == {"fresh"}


def test_what_needs_none_of_them_says_nothing(wired: Project, no_gpu: dict[str, str]) -> None:
    done = wired.invoke("run", "--profile", "toy", "--local", "--until", "count", **no_gpu)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--until", "twice"], NO_RUNTIME),
        (["--until", "after"], NO_RUNTIME),
        (["--stage", "twice", "--device", "cpu"], "this run is for the CPU alone"),
        (["--until", "twice", "--local"], "this machine shows none to `nvidia-smi`"),
    ],
)
def test_one_that_is_asked_for_is_refused(
    wired: Project, no_gpu: dict[str, str], words: list[str], reason: str
) -> None:
    done = wired.invoke("run", "--profile", "toy", *words, **no_gpu)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {words[1]} needs a GPU, and {reason}\n"
    assert not (wired.root / "artifacts").exists()


def test_a_gpu_that_is_insisted_on_leaves_nothing_out(
    wired: Project, no_gpu: dict[str, str]
) -> None:
    done = wired.invoke("run", "--profile", "toy", "--device", "gpu", **no_gpu)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: count asks for a GPU and Docker has no NVIDIA runtime")


def test_where_there_is_a_gpu_all_run(wired: Project, gpu: dict[str, str]) -> None:
    done = wired.invoke("run", "--profile", "toy", "--local", **gpu)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    made = sorted(one["stage"] for one in wired.manifests().values())
    assert made == ["after", "count", "sum", "twice", "words"]


def test_a_stage_of_another_module_keeps_its_own_name(wired: Project, gpu: dict[str, str]) -> None:
    wired.write("stages/profiles/toy.yaml", "words: {text: a b}\ntwice: {scales: [2]}\n")
    assert wired.invoke("run", "--profile", "toy", "--local", **gpu).returncode == 0
    scales = {one["stage"]: one["params"].get("scales") for one in wired.manifests().values()}
    assert (scales["count"], scales["twice"]) == ([1.0], [2.0])
    shown = json.loads(wired.invoke("show", "sum", "--profile", "toy", "--json").stdout)
    assert {(one["stage"], one["present"]) for one in shown["lineage"]} == {
        ("count", True), ("words", True), ("twice", True),
    }  # fmt: skip


def test_a_gpu_that_went_away_is_the_reason(wired: Project, gpu: dict[str, str]) -> None:
    assert wired.invoke("run", "--profile", "toy", "--local", **gpu).returncode == 0
    (Path(gpu["PATH"]) / "nvidia-smi").unlink()
    done = wired.invoke("status", "--profile", "toy", "--local", "--json", **gpu)
    states = {one["stage"]: (one["state"], one["reasons"]) for one in json.loads(done.stdout)}
    assert states == {
        "words": ("fresh", []),
        "count": ("fresh", []),
        "sum": ("stale", ["input t left out"]),
    }


def test_gc_leaves_compiled_kernels_alone(project: Project) -> None:
    kernel = project.write("artifacts/.cache/kernels/torch/marlin/marlin.so", "compiled")
    assert project.invoke("gc", "--no-images", "--keep", "0").returncode == 0
    assert kernel.is_file()
