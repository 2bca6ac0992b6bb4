"""The gguf stage with llama.cpp's own tools, on a small random model with the real tokenizer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stages.bench_cpu.dataset import SAMPLE
from stages.core.errors import InputError, StageFailed
from stages.gguf.params import Params
from stages.gguf.stage import run
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import read_rows, write_rows
from stages.intent.trie import AnswerTrie
from stages.runtime.gguf_file import read_header
from stages.runtime.hf import HFEngine
from stages.runtime.llama import LlamaEngine
from tests.stages.in_image.small_model import write_inputs

ENCODINGS = ("Q8_0", "Q4_K_M", "Q2_K")
# A random model's answers hang by a hair: only that they are made and compared is tested here.
FORGIVING = {"max_drop": 1.0, "min_f16_agreement": 0.0, "parity_rows": 4, "imatrix_rows": 24}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A train artifact's `merged/` and a data folder."""
    rows = read_rows(SAMPLE)
    folder = tmp_path_factory.mktemp("inputs")
    return write_inputs(folder, {"train": rows, "validation": rows})


@pytest.fixture(scope="module")
def made(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf")
    run(Params(encodings=ENCODINGS, **FORGIVING), inputs, out)
    return out


def test_files_are_named_and_described_by_the_convention(made: Path) -> None:
    names = {f"Cartwright-Intent-2.6M-v1.0-{name}.gguf" for name in ("F16", *ENCODINGS)}
    expected = {*names, "imatrix.gguf", "parity.json", "variants.json"}
    assert {path.name for path in made.iterdir()} == expected
    sizes = []
    for encoding in ("F16", *ENCODINGS):
        header = read_header(made / f"Cartwright-Intent-2.6M-v1.0-{encoding}.gguf")
        assert header.encoding == encoding
        assert header.metadata["general.license"] == "apache-2.0"
        assert header.metadata["general.languages"] == ["en", "hr", "es"]
        assert header.metadata["general.version"] == "v1.0"
        sizes.append(header.file_bytes)
    assert sizes == sorted(sizes, reverse=True)
    variants = json.loads((made / "variants.json").read_text())
    assert [one["encoding"] for one in variants] == ["F16", *ENCODINGS]
    assert [one["size_bytes"] for one in variants] == sizes


def test_quantization_used_the_training_rows(made: Path) -> None:
    metadata = read_header(next(made.glob("*Q4_K_M.gguf"))).metadata
    assert metadata["quantize.imatrix.file"] == "imatrix.gguf"
    assert metadata["quantize.imatrix.entries_count"] > 0
    assert not read_header(made / "imatrix.gguf").is_model


def test_parity_is_recorded_for_every_model(made: Path) -> None:
    parity = json.loads((made / "parity.json").read_text())
    assert parity["rows"] == 4
    assert [one["name"] for one in parity["models"]] == ["merged", "F16", *ENCODINGS]
    assert parity["models"][0]["agreement"]["exact"]["value"] == 1.0
    assert parity["models"][1]["agreement"]["exact"]["value"] >= 0.75


@pytest.mark.parametrize(
    "text",
    [
        "Catalog:\nMlijeko (1L)\n\nUser:\nMožeš li, molim te, dodati 12 komada?\n\nAnswer:\n",
        '{"action": "add", "product": "Black Tea (20 bags)", "quantity": 9999}',
        "  two  spaces, a\ttab and </s> <s> <unk> as plain text ",
        "ñandú 🛒 € „navodnici“ 日本",
        "",
    ],
)
def test_both_tokenizers_read_a_text_alike(inputs: dict[str, Path], made: Path, text: str) -> None:
    one = HFEngine.load(inputs["model"] / "merged")
    other = LlamaEngine(next(made.glob("*F16.gguf")), threads=1)
    assert other.encode(text) == one.encode(text)
    assert other.decode(other.encode(text)) == text
    assert (other.bos_id, other.eos_id) == (one.bos_id, one.eos_id)


def test_what_transformers_left_behind_neither_cuts_nor_pads(inputs: dict[str, Path]) -> None:
    engine = HFEngine.load(inputs["model"] / "merged")
    texts = ["Milk", "Catalog:\nHoney (350g jar)\n\nUser:\ntwo jars of honey, please"]
    ids = [engine.encode(text) for text in texts]
    assert len(ids[0]) < 8 < len(ids[1])
    engine.tokenizer.pad_token = engine.tokenizer.eos_token
    for text, expected in zip(texts, ids, strict=True):
        cut = engine.tokenizer(text, max_length=8, truncation=True, padding="max_length")
        assert len(cut["input_ids"]) == 8
        assert engine.encode(text) == expected


def test_f16_has_the_logits_of_the_merged_model(inputs: dict[str, Path], made: Path) -> None:
    one = HFEngine.load(inputs["model"] / "merged")
    other = LlamaEngine(next(made.glob("*F16.gguf")), threads=1)
    tokens = [one.bos_id, *one.encode("Catalog:\nHoney (350g jar)")]
    ours, theirs = (
        torch.tensor(list(other.eval(tokens, 0))),
        torch.tensor(list(one.eval(tokens, 0))),
    )
    assert torch.allclose(ours, theirs, atol=0.02)


def test_gate_fails_the_stage_and_nothing_is_kept(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Two bits a weight change many of a random model's answers: no drop is accepted here."""
    values = {**FORGIVING, "encodings": ["Q2_K"], "min_f16_agreement": 0.0, "parity_rows": 24}
    values |= {"max_drop": 0.0, "max_drop_by_encoding": []}
    (tmp_path / "p.json").write_text(json.dumps(values))
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(SAMPLE, data / "train.jsonl")
    # What the merged model answers is made the right answer, so that every change is a drop.
    engine = HFEngine.load(inputs["model"] / "merged")
    rows = []
    for row in read_rows(SAMPLE):
        prompt = prompt_tokens(engine, row.catalog, row.message)
        decoded = constrained(engine, AnswerTrie(engine.encode, row.catalog), prompt)
        rows.append(replace(row, answer=decoded.answer))
    write_rows(data / "validation.jsonl", rows)
    command = [sys.executable, "-m", "stages.gguf", "--params", str(tmp_path / "p.json")]
    command += ["--input", f"model={inputs['model']}", "--input", f"data={data}"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "error: parity gate: " in done.stderr
    assert "validation rows lost: " in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_tool_failure_is_one_sentence(inputs: dict[str, Path], tmp_path: Path) -> None:
    broken, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(inputs["model"] / "merged", broken)
    (broken / "tokenizer.model").unlink()
    (broken / "tokenizer.json").write_text("{}")
    out.mkdir()
    with pytest.raises(StageFailed, match=r"F16: convert_hf_to_gguf\.py ended with code 1"):
        run(Params(**FORGIVING), {**inputs, "model": broken}, out)


def test_too_few_rows_for_an_importance_matrix(inputs: dict[str, Path], tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for name in ("train", "validation"):
        lines = SAMPLE.read_text(encoding="utf-8").splitlines(keepends=True)[:5]
        (data / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(InputError, match="has 5 rows: an importance matrix needs at least 16"):
        run(Params(**FORGIVING), {**inputs, "data": data}, out)
