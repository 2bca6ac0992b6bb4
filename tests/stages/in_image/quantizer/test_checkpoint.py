"""The ways into a checkpoint: GPTQModel's kernels, transformers alone, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.core.errors import InputError
from stages.gptq import stage
from stages.intent.decode import prompt_tokens
from stages.intent.rows import Row
from stages.runtime.gptq import load
from stages.runtime.hf import HFEngine
from tests.stages.in_image.quantizer.conftest import LINEAR, USUAL


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
