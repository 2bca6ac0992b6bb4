"""A user's mistakes, through the commands: one sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, one_artifact, run_invoke

GOOD_PROMPT = "Catalog:\\nMilk\\nBread\\n\\nUser:\\ntwo milk"


def _refused(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for text in says:
        assert text in errors[0]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("not json at all", "not JSON"),
        ('{"action": "add", "product": "Cheese", "quantity": 1}', "Cheese"),
        ('{"action": "add", "product": "Milk", "quantity": 0}', "quantity"),
        ('{"action": "add", "product": "Milk", "quantity": -1}', "quantity"),
        ('{"action": "add", "product": "Milk", "quantity": 1.5}', "quantity"),
        ('{"action": "add", "product": "Milk", "quantity": "three"}', "quantity"),
        ('{"action": "add", "product": "Milk", "quantity": 1000000000000}', "quantity"),
        ('{"action": "add", "product": "Milk"}', "exactly action, product and quantity"),
    ],
)
def test_a_bad_dataset_row_is_named_by_file_and_line(
    tiny: Path, tmp_path: Path, completion: str, says: str
) -> None:
    escaped = completion.replace('"', '\\"')
    rows = tmp_path / "own-rows.jsonl"
    good = '{\\"action\\": \\"add\\", \\"product\\": \\"Milk\\", \\"quantity\\": 2}'
    rows.write_text(
        f'{{"prompt": "{GOOD_PROMPT}", "completion": "{good}"}}\n'
        f'{{"prompt": "{GOOD_PROMPT}", "completion": "{escaped}"}}\n',
        encoding="utf-8",
    )
    model = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    done = run_invoke("evaluate", "--dataset", str(rows), "--model", str(model))
    _refused(done, "own-rows.jsonl:2", says)


def test_an_empty_dataset(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    model = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    done = run_invoke("evaluate", "--dataset", str(tmp_path / "empty.jsonl"), "--model", str(model))
    _refused(done, "empty.jsonl", "no rows")


@pytest.mark.parametrize("kind", ["truncated", "not a GGUF", "missing"])
@pytest.mark.parametrize("command", ["bench-cpu", "serve", "predict"])
def test_a_broken_model_file(tiny: Path, tmp_path: Path, kind: str, command: str) -> None:
    model = next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))
    broken = tmp_path / "broken.gguf"
    if kind == "truncated":
        broken.write_bytes(model.read_bytes()[:1_000_000])
    elif kind == "not a GGUF":
        broken.write_bytes(b"PK\x03\x04" + bytes(100_000))
    arguments = [command, "--model", str(broken)]
    if command == "predict":
        catalog = tmp_path / "catalog.txt"
        catalog.write_text("Milk\nBread\n", encoding="utf-8")
        arguments += ["--catalog", str(catalog), "--message", "two milk"]
    _refused(run_invoke(*arguments, artifacts=tmp_path), "broken.gguf")


def _profile(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data:\n  sed: 1\n", "mine.yaml:2: data.sed"),
        ("data:\n  seed: one\n", "mine.yaml:2: data.seed"),
        ("data:\n  train_rows: true\n", "mine.yaml:2: data.train_rows"),
        ("data:\n  seed: 1\ntrain:\n  learning_rate: -1.0\n", "mine.yaml:4: train.learning_rate"),
        ("train:\n  max_steps: 1\n", "data.seed: required parameter is missing"),
        ("deploy:\n  to: moon\n", "mine.yaml:1: "),
        ("data: [1, 2\n", "mine.yaml:"),
    ],
)
def test_a_bad_profile_is_named_by_file_line_and_key(tmp_path: Path, text: str, says: str) -> None:
    done = run_invoke("run", "--profile", str(_profile(tmp_path, text)), artifacts=tmp_path / "a")
    _refused(done, says)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "tokenizer.model").unlink(), "tokenizer"),
        (lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80\x02."), ".bin"),
        (lambda folder: (folder / "modeling_own.py").write_text("boom = 1\n"), "modeling_own.py"),
    ],
)
def test_a_base_folder_that_cannot_be_trusted(
    tiny: Path, tmp_path: Path, spoil: object, says: str
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in one_artifact(tiny, "base").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if says == "tokenizer":
        (folder / "tokenizer.json").unlink()
    spoil(folder)  # type: ignore[operator]
    artifacts = tmp_path / "artifacts"
    done = run_invoke(
        "run", "--profile", "tiny", "--until", "base",
        "--set", "base.source=dir", "--set", f"base.path={folder}", artifacts=artifacts,
    )  # fmt: skip
    _refused(done, says)
    assert not list((artifacts / "tiny").glob("base/*/manifest.json"))


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    info = ["docker", "info", "--format", "{{json .Runtimes}}"]
    runtimes = subprocess.run(info, capture_output=True, text=True, check=True).stdout
    if "nvidia" in runtimes:
        done = run_invoke("status", "--profile", "tiny", "--device", "gpu", artifacts=tmp_path)
        assert done.returncode == 0
    else:
        done = run_invoke("run", "--profile", "tiny", "--device", "gpu", artifacts=tmp_path)
        _refused(done, "NVIDIA")


@pytest.mark.parametrize(
    ("host", "says"), [("unix:///nonexistent.sock", "daemon"), (None, "Docker")]
)
def test_no_docker(tmp_path: Path, host: str | None, says: str) -> None:
    env = {**os.environ, "CARTWRIGHT_ARTIFACTS": str(tmp_path)}
    if host is None:
        env["PATH"] = str(tmp_path)
    else:
        env["DOCKER_HOST"] = host
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "run", "--profile", "tiny"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    _refused(done, says)


def test_a_full_disk(cpu_images: None, tmp_path: Path) -> None:
    """An artifacts folder of 2 MB, which the data stage fills."""
    params = tmp_path / "params.json"
    params.write_text('{"seed": 1, "train_rows": 20000}')
    done = subprocess.run(
        ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp",
         "--mount", "type=tmpfs,destination=/artifacts,tmpfs-size=2m,tmpfs-mode=1777",
         "--volume", f"{params}:/params.json:ro", "--entrypoint", "sh", "cartwright/bench:local",
         "-c", "python3 -m stages.data --params /params.json --out /artifacts/out; code=$?; "
         "ls -A /artifacts | sed 's/^/left over: /'; exit $code"],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    _refused(done, "space")
    assert "left over" not in done.stdout
