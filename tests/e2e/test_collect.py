"""Rows and a baseline from llama.cpp's own server, in containers: what a kill leaves, who answers.

A model of seven million parameters writes nonsense: files, counts and exit codes are looked at.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stages.collect.fill import ATTEMPTS
from stages.intent.rows import MAX_QUANTITY, parse_row, read_rows, write_rows
from tests.commands import ROOT, one_artifact, run_invoke

KEY = "sesame-key"
ROWS = 12
# It writes these into every message, from the answers that it knows, and is told not to.
UNWANTED = "}0123456789"


@pytest.fixture(scope="module")
def model(tiny: Path) -> Path:
    return next(one_artifact(tiny, "gguf").glob("*-Q4_K_M.gguf"))


@pytest.fixture(scope="module")
def server(tiny: Path, model: Path) -> Iterator[str]:
    """llama-server with a key, on a port of this machine that containers reach."""
    vocabulary = json.loads((one_artifact(tiny, "base") / "tokenizer.json").read_text())["model"]
    bias = [word for one in UNWANTED for word in ("--logit-bias", f"{vocabulary['vocab'][one]}-20")]
    started = subprocess.run(
        ["docker", "run", "--rm", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
         "--publish", "8080", "--volume", f"{model}:/model.gguf:ro",
         "--entrypoint", "llama-server", "cartwright/bench:local",
         "--model", "/model.gguf", "--alias", "tiny", "--host", "0.0.0.0", "--port", "8080",
         "--api-key", KEY, "--threads", "1", "--parallel", "4", "--ctx-size", "8192", *bias],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    container = started.stdout.strip()
    try:
        published = subprocess.run(
            ["docker", "port", container, "8080/tcp"], capture_output=True, text=True, check=True
        )
        port = published.stdout.splitlines()[0].rpartition(":")[2]
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.25)
        yield f"http://localhost:{port}/v1"
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, check=True)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch, server: str) -> str:
    """The server as the endpoint, with its key."""
    monkeypatch.setenv("OPENAI_BASE_URL", server)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return server


def _generate(out: Path, *more: str) -> list[str]:
    return ["generate-rows", "--out", str(out), "--rows", str(ROWS), "--concurrency", "2", *more]


def _outcomes(partial: Path) -> list[dict[str, object]]:
    """The outcomes so far; the last line may be half written."""
    lines = partial.read_bytes().split(b"\n")[1:-1] if partial.exists() else []
    return [json.loads(line) for line in lines]


def _containers() -> list[str]:
    listed = subprocess.run(
        ["docker", "ps", "--quiet", "--filter", "label=io.cartwright.collect"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listed.stdout.split()


def test_a_run_that_was_killed_goes_on(tmp_path: Path, outside: str) -> None:
    out = tmp_path / "rows.jsonl"
    partial, rejected = tmp_path / "rows.jsonl.partial.jsonl", tmp_path / "rows.jsonl.rejects.jsonl"
    artifacts = tmp_path / "artifacts"
    run = subprocess.Popen(
        [sys.executable, "-m", "invoke", *_generate(out, "--requests-per-minute", "120")],
        cwd=ROOT,
        env={**os.environ, "CARTWRIGHT_ARTIFACTS": str(artifacts)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline_sec = time.monotonic() + 120
    while len(_outcomes(partial)) < 3 and time.monotonic() < deadline_sec:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # The container outlives the command: it is killed like everything else.
    for container in _containers():
        subprocess.run(["docker", "kill", container], capture_output=True, check=False)
    before = _outcomes(partial)
    assert 3 <= len(before) < ROWS and not out.exists() and not rejected.exists()

    done = run_invoke(*_generate(out), artifacts=artifacts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"going on after {len(before)} of {ROWS} rows" in done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {rejected.name}
    assert left == {"artifacts", "rows.jsonl"}
    assert out.stat().st_uid == os.getuid()
    lines = out.read_text(encoding="utf-8").splitlines()
    rows = [parse_row(line) for line in lines]
    assert f"rows.jsonl: {len(rows)} of {ROWS} rows" in done.stdout
    assert len({row.message for row in rows}) == len(rows)
    assert all(row.extra["source"] == "endpoint:tiny" for row in rows)
    # What came before the kill is there, at its place in the order.
    kept = [str(one["row"]) for one in sorted(before, key=lambda one: int(str(one["index"])))]
    assert [line for line in lines if line in kept] == [line for line in kept if line != "None"]
    raw = rejected.read_text(encoding="utf-8") if rejected.exists() else ""
    rejects = [json.loads(line) for line in raw.splitlines()]
    assert all(one["reason"] and one["text"] and 0 <= one["index"] < ROWS for one in rejects)
    tries = Counter(one["index"] for one in rejects)
    given_up = [index for index, count in tries.items() if count == ATTEMPTS]
    assert len(rows) + len(given_up) == ROWS
    everything = "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))
    assert KEY not in everything + done.stdout + done.stderr

    again = run_invoke(*_generate(out), artifacts=artifacts)
    assert again.returncode == 2 and "rows.jsonl is there already" in again.stderr


def test_a_command_that_was_killed_leaves_no_second_writer(tmp_path: Path, outside: str) -> None:
    out = tmp_path / "rows.jsonl"
    artifacts = tmp_path / "artifacts"
    run = subprocess.Popen(
        [sys.executable, "-m", "invoke", *_generate(out, "--requests-per-minute", "10")],
        cwd=ROOT,
        env={**os.environ, "CARTWRIGHT_ARTIFACTS": str(artifacts)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline_sec = time.monotonic() + 120
    while not _containers() and time.monotonic() < deadline_sec:
        time.sleep(0.05)
    [left] = _containers()
    second = run_invoke(*_generate(out), artifacts=artifacts)
    assert second.returncode == 2 and "another command is making this file" in second.stderr
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = run_invoke(*_generate(out), artifacts=artifacts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert left not in _containers()
    assert read_rows(out)


def test_a_catalog_and_languages_of_ones_own(tmp_path: Path, outside: str) -> None:
    shop = tmp_path / "shop.txt"
    shop.write_text("Espresso Beans 1kg\nPaper Filters (100)\nMilk Jug\n", encoding="utf-8")
    out = tmp_path / "rows.jsonl"
    done = run_invoke(
        *_generate(out, "--catalog", str(shop), "--languages", "german", "--model", "tiny"),
        artifacts=tmp_path / "artifacts",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for row in read_rows(out):
        assert set(row.catalog) == {"Espresso Beans 1kg", "Paper Filters (100)", "Milk Jug"}
        assert row.language == "german" and 1 <= row.answer.quantity <= MAX_QUANTITY


@pytest.mark.parametrize(
    ("variables", "arguments", "code", "says"),
    [
        ({"OPENAI_API_KEY": "wrong"}, [], 2, "refused the key (401)"),
        ({"OPENAI_API_KEY": ""}, [], 2, "refused the key (401)"),
        ({}, ["--model", "huge"], 2, "has no model 'huge'; it has tiny"),
        ({"OPENAI_BASE_URL": "http://localhost:9/v1"}, [], 1, "cannot be reached"),
        ({"OPENAI_BASE_URL": "http://nowhere.invalid/v1"}, [], 1, "cannot be reached"),
        ({"OPENAI_BASE_URL": "nowhere"}, [], 2, "http or https address"),
        ({"OPENAI_BASE_URL": ""}, [], 2, "OPENAI_BASE_URL is not set"),
        ({}, ["--languages", "english,,german"], 2, "--languages"),
        ({}, ["--requests-per-minute=-5"], 2, "--requests-per-minute must be from 0"),
        ({}, ["--catalog", "none.txt"], 2, "--catalog none.txt: no such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path,
    outside: str,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run_invoke(
        *_generate(tmp_path / "rows.jsonl", *arguments), artifacts=tmp_path / "artifacts"
    )
    assert done.returncode == code, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0], done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("rows*"))


def test_an_endpoint_is_scored_beside_the_model(tiny: Path, tmp_path: Path, outside: str) -> None:
    data = tmp_path / "some.jsonl"
    write_rows(data, read_rows(one_artifact(tiny, "data") / "test.jsonl")[:8])
    key = one_artifact(tiny, "gguf").name
    done = run_invoke(
        "evaluate", "--dataset", str(data), "--model", key, "--endpoint-model", "tiny", "--json",
        artifacts=tiny,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"].endswith("-Q4_K_M.gguf")
    assert list(report["baselines"]) == ["rules", "endpoint:tiny"]
    found = report["baselines"]["endpoint:tiny"]
    assert found["structured"] is True and found["exact"]["n"] == 8
    # Held to the catalog, even this one invents nothing.
    assert found["invented_products"] == 0 and found["invalid_json"] <= 8
    assert KEY not in done.stdout + done.stderr

    folder = one_artifact(tiny, "gguf")
    done = run_invoke(
        "evaluate", "--dataset", str(data), "--model", str(folder), "--endpoint-model", "tiny",
        artifacts=tiny,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "baseline: endpoint:tiny" in done.stdout and "held to a schema" in done.stdout

    done = run_invoke("evaluate", "--dataset", str(data), "--model", key, "--endpoint-model", "x")
    assert done.returncode == 2


def test_a_key_that_is_no_artifact(tiny: Path, tmp_path: Path) -> None:
    done = run_invoke("evaluate", "--dataset", "README.md", "--model", "0123456789", artifacts=tiny)
    assert done.returncode == 2 and "0 GGUF artifacts have a key that begins so" in done.stderr


def test_a_dataset_in_a_folder(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    rows = read_rows(one_artifact(tiny, "data") / "test.jsonl")
    write_rows(folder / "train.jsonl", rows)
    (folder / "README.md").write_text("# a dataset\n")
    out = tmp_path / "rows.jsonl"
    done = run_invoke("fetch-rows", str(folder), "--out", str(out), artifacts=tmp_path / "a")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"rows.jsonl: {len(rows)} rows" in done.stdout
    assert [(row.prompt, row.completion) for row in read_rows(out)] == [
        (row.prompt, row.completion) for row in rows
    ]


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("nobody-xyz/no-such-dataset-xyz", "hub dataset nobody-xyz/no-such-dataset-xyz"),
        ("./not/a/folder", "neither a hub id, OWNER/NAME, nor a folder"),
    ],
)
def test_a_dataset_that_cannot_be_had(
    cpu_images: None, tmp_path: Path, dataset: str, says: str
) -> None:
    """With a network there is no such dataset; without one, no hub: one sentence either way."""
    out = tmp_path / "rows.jsonl"
    done = run_invoke("fetch-rows", dataset, "--out", str(out), artifacts=tmp_path / "a")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and says in errors[0], done.stderr
    assert "Traceback" not in done.stderr and not out.exists()
