"""A folder for the hub: its card by the hub's library, its Modelfile by llama.cpp's server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from stages.bench_cpu.dataset import SAMPLE
from stages.core import artifact
from stages.intent.decode import greedy, prompt_tokens
from stages.intent.rows import read_rows
from stages.report.collect import collect
from stages.report.export import main
from stages.report.modelfile import modelfile
from stages.report.params import Params
from stages.runtime.llama import LlamaEngine
from tests.stages.report_inputs import GGUF, variant, write_inputs

MODEL = Path(os.environ["CARTWRIGHT_TEST_GGUF"])
LICENSE = Path(__file__).parents[4] / "LICENSE"


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A report of two variants, whose files both are the model of the test."""
    records = [variant(*GGUF[0]), variant(*GGUF[4])]
    inputs = write_inputs(tmp_path / "inputs", records)
    report = collect(Params(), inputs)
    for one in report["variants"]:
        if one["file"]:
            shutil.copy(MODEL, inputs["gguf"] / one["file"])
            one["sha256"] = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    manifest = artifact.read_manifest(inputs["data"])
    artifact.write_manifest(folder, {**manifest, "params": {"license": "apache-2.0"}})
    found = ["--report", str(folder), "--gguf", str(inputs["gguf"]), "--license", str(LICENSE)]
    return [*found, "--out", str(tmp_path / "out")]


def test_the_folder_is_whole(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    out = tmp_path / "out"
    name = "Cartwright-Intent-7.3M-v1.0-Q4_K_M.gguf"
    assert sorted(one.name for one in out.iterdir()) == sorted(
        ["README.md", "Modelfile", "LICENSE", "SHA256SUMS", "report.json", name]
    )
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=out,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert len((out / "SHA256SUMS").read_text().splitlines()) == 5
    assert (out / "LICENSE").read_text() == LICENSE.read_text()
    assert out.stat().st_mode & 0o777 == 0o755


def test_the_card_by_the_hubs_own_library(words: list[str], tmp_path: Path) -> None:
    assert main(words) == 0
    card = ModelCard((tmp_path / "out" / "README.md").read_text(), ignore_metadata_errors=False)
    assert card.data.license == "apache-2.0" and card.data.library_name == "gguf"
    assert card.data.language == ["en", "hr", "es"]
    results = {
        (one.task_name, one.metric_type, one.metric_name): one for one in card.data.eval_results
    }
    exact = results["Shopping intent (Q4_K_M)", "exact_match", "Exact match"]
    assert exact.metric_value == pytest.approx(887 / 900, abs=1e-6)
    assert {kind for _, kind, _ in results} == {"exact_match", "accuracy", "latency", "memory"}
    # Two variants of six figures each.
    assert len(card.data.eval_results) == 12
    assert "-F16.gguf" not in card.content and "ollama create intent -f Modelfile" in card.content
    # Written and read again, it is the same.
    again = ModelCard(f"---\n{card.data.to_yaml()}\n---\n{card.text}")
    assert again.data.to_dict() == card.data.to_dict()


def test_the_transformers_model_lies_at_the_top(words: list[str], tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "optimizer.pt", "run.py"):
        (merged / name).write_text("{}")
    assert main([*words, "--merged", str(merged), "--variants", "all"]) == 0
    names = {one.name for one in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"optimizer.pt", "run.py"} & names
    assert len([one for one in names if one.endswith(".gguf")]) == 2
    text = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: transformers" in text and "-F16.gguf" in text


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda root: (root / "out").mkdir(), "exists already"),
        (
            lambda root: next((root / "inputs" / "gguf").glob("*Q4_K_M.gguf")).write_bytes(b"GGUF"),
            "not the file that was measured",
        ),
        (
            lambda root: next((root / "inputs" / "gguf").glob("*Q4_K_M.gguf")).unlink(),
            "no such file, though the report is of it",
        ),
    ],
)
def test_what_does_not_fit_leaves_nothing(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Any,
    sentence: str,
) -> None:
    break_it(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not list(tmp_path.glob(".tmp-*"))
    assert not (tmp_path / "out" / "README.md").exists()


def test_a_variant_that_is_not_there(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--variants", "Q4_K_M,Q9"]) == 2
    assert "--variants Q9: the report has no such file; there are F16 and Q4_K_M" in (
        capsys.readouterr().err
    )


# ------------------------------------------------------------------ the Modelfile's answers


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Template and parameters of a Modelfile."""
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', text, re.DOTALL)
    pairs = re.findall(r"^PARAMETER (\w+) (.*)$", text, re.MULTILINE)
    return template, {name: json.loads(value) for name, value in pairs}


def rendered(template: str, prompt: str, system: str = "") -> str:
    """The template as Go renders it, of what it has: one condition and two values."""
    text = re.sub(
        r"\{\{ if \.System \}\}(.*?)\{\{ end \}\}", r"\1" if system else "", template,
        flags=re.DOTALL,
    )  # fmt: skip
    shown = text.replace("{{ .System }}", system).replace("{{ .Prompt }}", prompt)
    assert "{{" not in shown
    return shown


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """llama.cpp's server on the model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["llama-server", "--model", str(MODEL), "--port", str(port), "--no-webui"]
    process = subprocess.Popen(
        [*command, "--ctx-size", "2048", "--parallel", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def ask(server: str, prompt: str, parameters: dict[str, Any]) -> str:
    names = {"num_predict": "n_predict"}
    values = {names.get(key, key): value for key, value in parameters.items() if key != "num_ctx"}
    body = json.dumps({"prompt": prompt, **values, "stop": [parameters["stop"]]}).encode()
    request = urllib.request.Request(
        f"{server}/completion", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(json.load(reply)["content"])


def test_the_modelfile_gives_the_answers_of_greedy_decoding(server: str) -> None:
    template, parameters = parsed(modelfile(MODEL))
    assert parameters["temperature"] == 0 and parameters["stop"] == "\n"
    # The file says that BOS is not added, and the model was trained with it.
    assert template.startswith("<s>")
    engine = LlamaEngine(MODEL, threads=2)
    rows = read_rows(SAMPLE)
    texts = []
    for row in rows:
        prompt = rendered(template, row.prompt)
        texts.append(ask(server, prompt, parameters))
        # As a chat has it: the catalog apart from the message.
        catalog, _, message = row.prompt.partition("\n\nUser:\n")
        assert rendered(template, message, system=catalog) == prompt
        tokens = greedy(engine, prompt_tokens(engine, row.catalog, row.message), 96)
        assert texts[-1] == engine.decode(tokens), row.prompt
    assert len(set(texts)) > len(rows) / 2
    assert all(json.loads(text).keys() == {"action", "product", "quantity"} for text in texts)
