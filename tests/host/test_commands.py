"""The commands as a user types them, on a machine that lacks something."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.core.toy import Project

COMMANDS = {
    "bench-cpu", "build", "build-all", "demo", "doctor", "evaluate", "export", "fetch-rows", "gc",
    "generate-rows", "load-test", "logs", "predict", "recommend", "report", "run", "serve", "show",
    "status", "stop",
}  # fmt: skip


@pytest.fixture
def without_docker(tmp_path: Path) -> dict[str, str]:
    empty = tmp_path / "bin"
    empty.mkdir()
    return {"PATH": str(empty), "DOCKER_HOST": ""}


def test_the_list_reads_like_a_manual(project: Project) -> None:
    listed = json.loads(project.invoke("--list", "--list-format", "json").stdout)
    by_name = {one["name"]: one["help"] for one in listed["tasks"]}
    assert set(by_name) >= COMMANDS
    assert all(text and text.endswith(".") for text in by_name.values())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(project: Project, name: str) -> None:
    text = project.invoke("--help", name).stdout
    options = text.partition("Options:\n")[2].rstrip().splitlines()
    for line, following in zip(options, [*options[1:], ""], strict=True):
        if line.startswith("  -"):
            explained = len(line) > 32 and line[32:].strip()
            assert explained or following.startswith(" " * 30), line


def test_no_docker(project: Project, without_docker: dict[str, str]) -> None:
    done = project.invoke("run", "--profile", "toy", **without_docker)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: Docker is not installed (no `docker` on the PATH); get it"
    )
    assert done.stderr.count("\n") == 1
    assert project.manifests() == {}
    assert project.leftovers() == []


def test_doctor_says_what_is_missing(project: Project, without_docker: dict[str, str]) -> None:
    done = project.invoke("doctor", "--json", **without_docker)
    assert done.returncode == 2
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["Docker"]["state"] == "missing"
    assert "https://" in found["Docker"]["advice"]
    assert found["Python"]["state"] == "ok"
    assert {"disk", "memory", "CA bundle", "wheelhouse"} <= set(found)
    assert done.stderr.startswith("error: not ready: Docker")


def test_doctor_checks_the_paths_of_settings(
    project: Project, without_docker: dict[str, str], tmp_path: Path
) -> None:
    project.write(".env", f"CA_BUNDLE={tmp_path}/none.pem\nWHEELS={tmp_path}\n")
    done = project.invoke("doctor", "--json", CA_BUNDLE="", WHEELS="", **without_docker)
    found = {one["name"]: one["state"] for one in json.loads(done.stdout)}
    assert (found["CA bundle"], found["wheelhouse"]) == ("missing", "missing")


def test_a_gpu_that_is_asked_for_is_never_a_quiet_cpu_run(
    project: Project, without_docker: dict[str, str]
) -> None:
    done = project.invoke("run", "--profile", "toy", "--device", "gpu", **without_docker)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: count asks for a GPU and Docker has no NVIDIA runtime")


def test_auto_takes_the_cpu_where_there_is_no_gpu(
    project: Project, without_docker: dict[str, str]
) -> None:
    project.replace("stages/pipeline.yaml", "gpu: toy-gpu}", "gpu: toy-gpu}\n    device: auto")
    done = project.invoke("status", "--profile", "toy", "--json", **without_docker)
    assert [one["device"] for one in json.loads(done.stdout)] == ["cpu", "cpu", "cpu"]


def give_a_gpu_backend(project: Project) -> None:
    """The stage `count` gets a backend that has an image for GPUs alone."""
    project.replace(
        "stages/count/params.py", "    seed: int", '    backend: str = ""\n    seed: int'
    )
    wiring = "gpu: toy-gpu}\n    device: auto\n    backends: {old: {gpu: toy-gpu}}"
    project.replace("stages/pipeline.yaml", "gpu: toy-gpu}", wiring)


@pytest.mark.parametrize("device", [[], ["--device", "cpu"], ["--device", "gpu"]])
def test_a_backend_without_a_cpu_image_says_what_it_needs(
    project: Project, without_docker: dict[str, str], device: list[str]
) -> None:
    give_a_gpu_backend(project)
    words = ["run", "--profile", "toy", "--set", "count.backend=old", *device]
    done = project.invoke(*words, **without_docker)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: count.backend old needs an NVIDIA GPU and Docker has no NVIDIA runtime here; "
    )
    assert done.stderr.endswith("or leave count.backend out: the usual one also runs on a CPU\n")
    assert done.stderr.count("\n") == 1


def test_the_usual_backend_keeps_the_usual_images(
    project: Project, without_docker: dict[str, str]
) -> None:
    give_a_gpu_backend(project)
    done = project.invoke("status", "--profile", "toy", "--json", **without_docker)
    assert [one["device"] for one in json.loads(done.stdout)] == ["cpu", "cpu", "cpu"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "--model", "none.gguf"], "--model none.gguf: no such file"),
        (["serve", "--profile", "toy"], "the profile toy has no GGUF file yet"),
        (["predict", "--message", "two", "--model", "tasks.py"], "give the catalog once"),
        (
            ["predict", "--message", "two", "--model", "tasks.py", "--catalog", "none.txt"],
            "--catalog none.txt: no such file",
        ),
        (["evaluate", "--model", "tasks.py", "--dataset", "none.jsonl"], "--dataset none.jsonl"),
        (["bench-cpu", "--model", "none.gguf"], "--model none.gguf: no such file"),
        (["bench-cpu", "--model", "stages"], "--model stages: the folder holds no .gguf file"),
        (["bench-cpu"], "--model is missing: name a .gguf file or a folder of them"),
        (["show", "sum", "--profile", "toy"], "no artifact of 'sum' in the profile toy"),
        (["logs", "--profile", "toy"], "no log of any stage in the profile toy"),
        (["build", "tyo"], "no image 'tyo'; there are: "),
        (["gc", "--keep", "-1"], "--keep must be 0 or more, not -1"),
    ],
)
def test_what_is_not_there_is_named(
    project: Project, without_docker: dict[str, str], words: list[str], sentence: str
) -> None:
    done = project.invoke(*words, **without_docker)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1


def test_json_leaves_standard_output_to_the_result(project: Project) -> None:
    done = project.run("--json")
    result = json.loads(done.stdout)
    assert [one["state"] for one in result["stages"]] == ["fresh", "fresh", "fresh"]
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert events[0] == {
        "event": "begin",
        "names": ["words", "count", "sum"],
        "estimates_sec": {},
    }
    assert {"event": "line", "name": "count", "text": "counting"} in events


def test_a_failed_stage_says_why_and_where_its_log_is(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "fail: input")
    done = project.run()
    assert done.returncode == 2
    [log] = (project.root / "artifacts/.logs/toy").glob("count-*.log")
    assert done.stderr == (
        "error: count: rows.jsonl:3: quantity must be a whole number from 1, not 1.5 "
        f"(log: {log})\n"
    )
    printed = project.invoke("logs", "--profile", "toy", "--stage", "count").stdout
    assert printed == log.read_text(encoding="utf-8")
    assert printed.startswith("counting\n")


def test_a_stage_that_crashed_names_its_last_line(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "fail: bug")
    done = project.run()
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: count failed with exit code 1: ValueError: a bug of ours (log: "
    )


def test_local_names_a_missing_package(project: Project) -> None:
    project.replace("stages/profiles/toy.yaml", "seconds: 0.0", "fail: import")
    done = project.run()
    assert done.returncode == 2
    assert "the package package_that_nobody_has is not installed here" in done.stderr


def test_the_artifacts_folder_can_be_elsewhere(project: Project, tmp_path: Path) -> None:
    done = project.invoke(
        "run", "--profile", "toy", "--local", CARTWRIGHT_ARTIFACTS=str(tmp_path / "elsewhere")
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "toy" / "sum").is_dir()
    assert not (project.root / "artifacts").exists()


def test_a_profile_by_its_path_from_another_folder(project: Project, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("words: {text: a b}\n", encoding="utf-8")
    done = project.invoke("run", "--profile", str(tmp_path / "mine.yaml"), "--local")
    assert done.returncode == 0, done.stderr
    assert (project.root / "artifacts" / "mine" / "sum").is_dir()


def test_python_version_is_what_runs(project: Project) -> None:
    assert project.run().returncode == 0
    manifest = next(iter(project.manifests().values()))
    assert manifest["host"]["python"] == ".".join(map(str, sys.version_info[:3]))
