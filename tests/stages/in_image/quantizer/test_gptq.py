"""The gptq stage with GPTQModel, on a small random model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.core.errors import InputError, StageFailed
from stages.gptq import backend, stage
from stages.gptq.params import Params
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import Row
from stages.intent.trie import AnswerTrie
from stages.runtime.folders import TOKENIZER_FILES
from stages.runtime.hf import HFEngine
from tests.stages.in_image.quantizer.conftest import LINEAR, USUAL
from tests.stages.in_image.small_model import write_data, write_model


def _command(
    params: dict[str, Any], inputs: dict[str, Path], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Runs the stage as the pipeline does; its output is `folder / "out"`."""
    (folder / "p.json").write_text(json.dumps(params))
    command = [sys.executable, "-m", "stages.gptq", "--params", str(folder / "p.json")]
    for name, path in inputs.items():
        command += ["--input", f"{name}={path}"]
    command += ["--out", str(folder / "out")]
    return subprocess.run(command, text=True, capture_output=True, check=False)


# ------------------------------------------------------------------ what is written


def test_a_checkpoint_is_the_quantized_model_and_the_tokenizer(
    inputs: dict[str, Path], gptq: tuple[Path, dict[str, Any]]
) -> None:
    out, metrics = gptq
    checkpoint, merged = out / "checkpoint", inputs["model"] / "merged"
    kept = {name for name in TOKENIZER_FILES if (merged / name).is_file()}
    written = {path.name for path in checkpoint.iterdir()}
    assert len(kept) >= 3
    assert written == kept | {
        "config.json", "quantize_config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    for name in (*kept, "generation_config.json"):
        assert (checkpoint / name).read_bytes() == (merged / name).read_bytes(), name
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    expected = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": 4,
        "group_size": 128,
        "sym": True,
        "desc_act": False,
    }
    assert {name: config[name] for name in expected} == expected
    assert metrics.pop("parity").keys() == {"merged", "GPTQ 4 bit"}
    assert metrics == {
        "backend": "gptqmodel",
        "device": "cpu",
        "method": "gptq",
        "bits": 4,
        "group_size": 128,
        "size_bytes": (checkpoint / "model.safetensors").stat().st_size,
        "calibration_rows": 24,
    }


@pytest.mark.parametrize(
    ("made", "touched"),
    [("gptq", "_proj."), ("awq", "model.layers.")],  # AWQ moves scales into the norms
    indirect=["made"],
)
def test_linear_layers_are_small_and_all_else_is_as_it_was(
    inputs: dict[str, Path], made: Path, touched: str
) -> None:
    before = load_file(inputs["model"] / "merged" / "model.safetensors")
    after = load_file(made / "model.safetensors")
    linear = {name for name in before if "_proj." in name}
    assert len(linear) == LINEAR
    bf16_bytes = sum(2 * before[name].numel() for name in linear)
    quantized_bytes = sum(value.nbytes for name, value in after.items() if "_proj." in name)
    assert bf16_bytes / 4 < quantized_bytes < bf16_bytes * 0.3
    others = {name for name in before if touched not in name}
    assert others >= {"model.embed_tokens.weight", "model.norm.weight"}
    for name in others:
        same = torch.equal(after[name], before[name].to(torch.bfloat16))
        assert same, name


@pytest.mark.parametrize(
    ("made", "name"), [("gptq", "GPTQ 4 bit"), ("awq", "AWQ 4 bit")], indirect=["made"]
)
def test_parity_is_recorded_for_both_models(made: Path, name: str) -> None:
    recorded = json.loads((made.parent / "parity.json").read_text())
    assert recorded["rows"] == USUAL.parity_rows
    assert [one["name"] for one in recorded["models"]] == ["merged", name]
    assert recorded["models"][0]["agreement"]["exact"]["value"] == 1.0
    assert recorded["models"][1]["agreement"]["exact"]["n"] == USUAL.parity_rows


def test_the_same_inputs_give_the_same_bytes(
    inputs: dict[str, Path], gptq: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """In another process, by the stage's own command line."""
    values = {"calibration_rows": 24, "parity_rows": 4, "max_drop": 1.0}
    done = _command(values, inputs, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "GPTQ 4 bit: 24 calibration rows on cpu", "layer 1/2", "layer 2/2",
    ]  # fmt: skip
    for name in ("model.safetensors", "config.json", "quantize_config.json"):
        first, again = (path / "checkpoint" / name for path in (gptq[0], tmp_path / "out"))
        assert first.read_bytes() == again.read_bytes(), name
    # Only here: in a process that goes on, the libraries make their caches' folders again.
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "checkpoint", "parity.json", "manifest.json",
    }  # fmt: skip


# ------------------------------------------------------------------ calibration


def test_held_out_rows_leave_no_trace_and_another_seed_does(
    rows: dict[str, list[Row]],
    inputs: dict[str, Path],
    gptq: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    """The weights hang by the training rows that the seed takes, and by no others."""
    others = {**rows, "validation": rows["test"], "test": rows["validation"]}
    data = write_data(tmp_path / "data", others)
    weights = (gptq[0] / "checkpoint" / "model.safetensors").read_bytes()
    for name, changed, params in (
        ("data", {**inputs, "data": data}, USUAL),
        ("seed", inputs, replace(USUAL, seed=1)),
    ):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        stage.run(params, changed, out)
        again = (out / "checkpoint" / "model.safetensors").read_bytes()
        assert (again == weights) == (name == "data"), name


class Taken(Exception):
    """The calibration rows, on their way out of the stage."""


def test_calibration_takes_training_rows_by_seed(
    rows: dict[str, list[Row]],
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take(_params: Params, _merged: Path, calibration: list[Row], *_rest: Any) -> None:
        raise Taken(calibration)

    monkeypatch.setattr(backend, "quantize", take)
    taken = []
    for number, seed in enumerate((0, 1, 1)):
        out = tmp_path / str(number)
        out.mkdir()
        with pytest.raises(Taken) as caught:
            stage.run(replace(USUAL, seed=seed), inputs, out)
        taken.append([row.prompt for row in caught.value.args[0]])
    assert taken[0] != taken[1] == taken[2]
    train = {row.prompt for row in rows["train"]}
    for prompts in taken:
        assert len(set(prompts)) == 24
        assert set(prompts) < train


def test_a_calibration_row_is_what_training_read(merged: HFEngine, rows: Any) -> None:
    row = rows["train"][0]
    tokens = backend.tokens(merged.tokenizer, row)
    prompt = prompt_tokens(merged, row.catalog, row.message)
    expected = [*prompt, *merged.encode(row.completion), merged.eos_id]
    assert tokens == {"input_ids": expected, "attention_mask": [1] * len(expected)}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_leak_is_refused_by_its_line(
    rows: dict[str, list[Row]], inputs: dict[str, Path], tmp_path: Path, split: str
) -> None:
    leaked = replace(rows["train"][5], message=rows["train"][5].message.upper() + " ")
    changed = {**rows, split: [*rows[split][:2], leaked, *rows[split][2:]]}
    data = write_data(tmp_path / "data", changed)
    done = _command({"calibration_rows": 64}, {**inputs, "data": data}, tmp_path)
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith(f"error: rows of {split}.jsonl that repeat a calibration row")
    assert "not counted: 3; take" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", "p.json"}


# ------------------------------------------------------------------ what is refused


def test_a_gpu_that_is_asked_for_must_be_there(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device is cuda and torch .* sees no GPU"):
        stage.run(replace(USUAL, device="cuda"), inputs, tmp_path)


def test_an_error_in_a_thread_of_the_library_fails_the_stage(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys 96 wide, which the stage refuses before GPTQModel stumbles over them."""
    write_model(tmp_path / "model", head_dim=24)
    odd = {**inputs, "model": tmp_path / "model"}
    out = tmp_path / "out"
    out.mkdir()
    params = replace(USUAL, method="awq", group_size=64)
    with pytest.raises(InputError, match="key width of 96 is no multiple of 64"):
        stage.run(params, odd, out)
    monkeypatch.setattr(stage, "AWQ_WIDTH", 1)
    with pytest.raises(StageFailed, match="could not quantize the model: AssertionError"):
        stage.run(params, odd, out)


def test_gate_fails_the_stage_and_nothing_is_kept(
    merged: HFEngine, rows: dict[str, list[Row]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Two bits a weight change many of a random model's answers: no drop is accepted here."""
    # What the merged model answers is made the right answer, so that every change is a drop.
    right = []
    for row in rows["validation"]:
        prompt = prompt_tokens(merged, row.catalog, row.message)
        decoded = constrained(merged, AnswerTrie(merged.encode, row.catalog), prompt)
        right.append(replace(row, answer=decoded.answer))
    data = write_data(tmp_path / "data", {**rows, "validation": right})
    values = {"bits": 2, "calibration_rows": 24, "parity_rows": 24, "max_drop": 0.0}
    done = _command(values, {**inputs, "data": data}, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error: parity gate: GPTQ 2 bit has " in done.stderr
    assert "validation rows lost: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"data", "p.json"}
