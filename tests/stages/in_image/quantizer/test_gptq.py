"""The gptq stage with GPTQModel, and its checkpoints' ways in, on a small random model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.core.errors import InputError, StageFailed
from stages.data.generate import generate
from stages.data.rates import Rates
from stages.gptq import backend, stage
from stages.gptq.params import Params
from stages.intent.decode import constrained, prompt_tokens
from stages.intent.rows import Row
from stages.intent.trie import AnswerTrie
from stages.runtime.folders import TOKENIZER_FILES
from stages.runtime.gptq import load
from stages.runtime.hf import HFEngine
from tests.stages.in_image.small_model import write_data, write_inputs, write_model

PLAIN = Rates(**{field.name: 0.0 for field in fields(Rates)})
ROWS = {"train": 64, "validation": 24, "test": 12}
# A random model's answers hang by a hair: only that they are made and compared is tested here.
USUAL = Params(calibration_rows=24, parity_rows=4, max_drop=1.0)
LINEAR = 2 * 7
"""Layers of the small model that are quantized."""


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {
        split: list(generate(4, split, count, ("english",), (2, 8), PLAIN))
        for split, count in ROWS.items()
    }


@pytest.fixture(scope="module")
def inputs(rows: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"), rows)


@pytest.fixture(scope="module")
def merged(inputs: dict[str, Path]) -> HFEngine:
    return HFEngine.load(inputs["model"] / "merged")


def _made(
    params: Params, inputs: dict[str, Path], folders: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = folders.mktemp("out")
    return out, stage.run(params, inputs, out)


@pytest.fixture(scope="module")
def gptq(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    return _made(USUAL, inputs, tmp_path_factory)


@pytest.fixture(scope="module")
def awq(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    return _made(replace(USUAL, method="awq", group_size=64), inputs, tmp_path_factory)


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Path:
    """The checkpoint of the method that a test is run for."""
    out: Path = request.getfixturevalue(request.param)[0]
    return out / stage.CHECKPOINT


def _prompts(rows: dict[str, list[Row]], engine: HFEngine) -> list[list[int]]:
    return [prompt_tokens(engine, row.catalog, row.message) for row in rows["validation"][:6]]


def _logits(engine: HFEngine, prompts: Iterable[Sequence[int]]) -> torch.Tensor:
    return torch.stack([engine.eval(prompt, 0) for prompt in prompts])


def _likeness(one: torch.Tensor, other: torch.Tensor) -> float:
    """The smallest cosine between two models' logits for a prompt."""
    return float(torch.nn.functional.cosine_similarity(one, other, dim=-1).min())


def _kernels(model: Any) -> list[str]:
    """The classes of the quantized layers, each once a layer."""
    found = [type(module).__name__ for module in model.modules() if hasattr(module, "qweight")]
    assert len(found) == LINEAR
    return sorted(set(found))


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
    assert {path.name for path in out.iterdir()} == {"checkpoint", "parity.json"}
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


# ------------------------------------------------------------------ the ways in


@pytest.mark.parametrize(
    ("made", "kernel", "kind"),
    [
        ("gptq", "torch", "TorchLinear"),
        ("gptq", "torch_fused", "TorchFusedLinear"),
        ("awq", "torch", "AwqTorchLinear"),
    ],
    indirect=["made"],
)
def test_a_checkpoint_has_nearly_the_logits_of_the_merged_model(
    merged: HFEngine, rows: dict[str, list[Row]], made: Path, kernel: str, kind: str
) -> None:
    engine = load(made, kernel=kernel, device="cpu")
    assert _kernels(engine.model) == [kind]
    prompts = _prompts(rows, merged)
    assert [engine.bos_id, engine.eos_id] == [merged.bos_id, merged.eos_id]
    assert prompts == _prompts(rows, engine)
    assert _likeness(_logits(engine, prompts), _logits(merged, prompts)) > 0.95


def test_that_bound_tells_a_wrong_layer(
    merged: HFEngine, rows: dict[str, list[Row]], gptq: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """One of fourteen layers with its levels turned round."""
    wrong = tmp_path / "checkpoint"
    shutil.copytree(gptq[0] / "checkpoint", wrong)
    tensors = load_file(wrong / "model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.qweight"] ^= -1
    save_file(tensors, wrong / "model.safetensors", metadata={"format": "pt"})
    prompts = _prompts(rows, merged)
    engine = load(wrong, kernel="torch", device="cpu")
    assert _likeness(_logits(engine, prompts), _logits(merged, prompts)) < 0.8


ALONE = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
folder, prompts, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
kernels = [type(module).__name__ for module in model.modules() if hasattr(module, "qweight")]
with torch.inference_mode():
    rows = [model(torch.tensor([p])).logits[0, -1].float() for p in json.loads(prompts)]
torch.save({"logits": torch.stack(rows), "kernels": kernels}, out)
"""


@pytest.mark.parametrize("made", ["gptq", "awq"], indirect=True)
def test_transformers_alone_loads_a_checkpoint(
    merged: HFEngine, rows: dict[str, list[Row]], made: Path, tmp_path: Path
) -> None:
    """In a process that has nothing of ours."""
    prompts = _prompts(rows, merged)
    command = [sys.executable, "-c", ALONE, str(made), json.dumps(prompts), str(tmp_path / "out")]
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, text=True, capture_output=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    given = torch.load(tmp_path / "out")
    assert len(given["kernels"]) == LINEAR
    ours = _logits(load(made, kernel="torch", device="cpu"), prompts)
    # Both compute in bfloat16, and add in another order.
    assert _likeness(given["logits"], ours) > 0.999
    assert _likeness(given["logits"], _logits(merged, prompts)) > 0.95


@pytest.mark.parametrize(
    ("changed", "least"),
    [
        ({"bits": 8, "desc_act": True, "symmetric": False, "group_size": 32}, 0.999),
        ({"bits": 8}, 0.999),
        ({"symmetric": False, "group_size": 32}, 0.97),
        ({"bits": 3, "group_size": 32}, 0.9),
    ],
)
def test_every_kind_of_gptq_comes_back_as_it_was_asked_for(
    merged: HFEngine,
    rows: dict[str, list[Row]],
    inputs: dict[str, Path],
    tmp_path: Path,
    changed: dict[str, Any],
    least: float,
) -> None:
    metrics = stage.run(replace(USUAL, **changed), inputs, tmp_path)
    config = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    names = {"symmetric": "sym"}
    for name, value in changed.items():
        assert config["quantization_config"][names.get(name, name)] == value
    assert set(metrics["parity"]) == {"merged", f"GPTQ {metrics['bits']} bit"}
    prompts = _prompts(rows, merged)
    engine = load(tmp_path / "checkpoint", kernel="torch", device="cpu")
    assert _likeness(_logits(engine, prompts), _logits(merged, prompts)) > least


# ------------------------------------------------------------------ what is refused


def _with_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _without_tensors(folder: Path) -> None:
    save_file({}, folder / "model.safetensors")


def _not_quantized(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))


def _by_others(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))


def _no_mapping(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_with_pickle, r"pytorch_model\.bin: pickle weights can run code"),
        (_cut, r"model\.safetensors is damaged: "),
        (_without_weights, "has no safetensors weights"),
        (_without_tensors, r"model\.safetensors holds no tensors"),
        (_not_quantized, "is no quantized model: its config names no gptq or awq"),
        (_by_others, "is no quantized model"),
        (_no_mapping, "is no quantized model"),
        (_no_config, r"config\.json cannot be read"),
    ],
)
def test_an_unsound_checkpoint_is_refused(
    gptq: tuple[Path, dict[str, Any]], tmp_path: Path, spoil: Any, sentence: str
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(gptq[0] / "checkpoint", folder)
    spoil(folder)
    with pytest.raises(InputError, match=sentence) as caught:
        load(folder, kernel="torch", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "kernel", "device", "sentence"),
    [
        ("gptq", "marlin", "cpu", "the kernel marlin cannot take .*CUDA"),
        ("awq", "marlin", "cpu", "the kernel marlin cannot take .*CUDA"),
        ("gptq", "exllama_v2", "cpu", "the kernel exllama_v2 cannot take .*CUDA"),
        ("gptq", "triton", "cpu", "the kernel triton cannot take .*cpu"),
        ("gptq", "torch_int8", "cpu", "the kernel torch_int8 cannot take .*8-bit"),
        ("gptq", "gemm", "cpu", "gemm is no kernel of gptq"),
        ("awq", "triton", "cpu", "triton is no kernel of awq"),
        ("gptq", "auto", "cpu", "auto is no kernel of gptq"),
        ("gptq", "torch", "cuda", "device is cuda but no GPU is visible here"),
        ("gptq", "marlin", "cuda:0", "device is cuda:0 but no GPU is visible here"),
    ],
    indirect=["made"],
)
def test_a_kernel_is_that_one_or_none(made: Path, kernel: str, device: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        load(made, kernel=kernel, device=device)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_let_go_takes_no_memory(gptq: tuple[Path, dict[str, Any]]) -> None:
    # In a process of its own: what matters is where GPTQModel is imported first.
    code = """if True:
        import gc, pathlib, sys, weakref
        from stages.runtime.gptq import load
        model = weakref.ref(load(pathlib.Path(sys.argv[1]), kernel="torch", device="cpu").model)
        gc.collect()
        sys.exit(model() is not None)"""
    command = [sys.executable, "-c", code, str(gptq[0] / stage.CHECKPOINT)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


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
