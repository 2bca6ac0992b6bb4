"""Quantization on CUDA, by the stage's own command line: `pytest -m gpu`, where a GPU is.

auto-gptq needs packages that the rest of the project has left: `CARTWRIGHT_AUTO_GPTQ_SITE` names a
folder that holds them, as `pip install --target` makes one of images/auto-gptq/requirements.lock.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from stages.data.rates import Rates
from tests.gpu.stages import keep_result, run_stage

pytestmark = pytest.mark.gpu

SITE = os.environ.get("CARTWRIGHT_AUTO_GPTQ_SITE", "")
PARAMS = {"device": "cuda", "group_size": 64, "calibration_rows": 256, "parity_rows": 200}


def _needs_gptqmodel() -> None:
    if importlib.util.find_spec("gptqmodel") is None:
        pytest.skip("the package gptqmodel is not installed here")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    found = {"model": folder / "base", "data": folder / "data"}
    run_stage("base", {"source": "shipped"}, {}, found["model"])
    plain = {field.name: 0.0 for field in fields(Rates)}
    rows = {"seed": 7, "train_rows": 600, "validation_rows": 200, "test_rows": 100}
    shops = {"languages": ["english"], "min_catalog_lines": 2, "max_catalog_lines": 8}
    run_stage("data", rows | shops | plain, {}, found["data"])
    return found


def _quantize(
    params: dict[str, Any], inputs: dict[str, Path], out: Path, **environment: str
) -> dict[str, Any]:
    """Runs the stage, whose parity gate must pass; returns its manifest."""
    manifest = run_stage("gptq", PARAMS | params, inputs, out, **environment)
    metrics = manifest["metrics"]
    assert metrics["device"] == "cuda"
    parity = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    merged, quantized = parity["models"]
    assert parity["rows"] == 200
    assert merged["exact"] > 0.9
    assert quantized["drop"] <= 0.02
    config = json.loads((out / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization_config"]["bits"] == 4
    assert config["quantization_config"]["group_size"] == 64
    name = f"{metrics['backend']}-{metrics['method']}"
    keep_result(name, "test_gptq.py", manifest, parity=parity)
    return manifest


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_gptqmodel_quantizes_the_shipped_base(
    inputs: dict[str, Path], tmp_path: Path, method: str
) -> None:
    _needs_gptqmodel()
    _quantize({"method": method}, inputs, tmp_path / "gptq")


@pytest.fixture(scope="module")
def by_auto_gptq(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SITE:
        pytest.skip("CARTWRIGHT_AUTO_GPTQ_SITE is not set: it names a folder with auto-gptq")
    out = tmp_path_factory.mktemp("auto-gptq") / "gptq"
    path = os.pathsep.join(filter(None, (SITE, os.environ.get("PYTHONPATH"))))
    manifest = _quantize({"backend": "auto-gptq"}, inputs, out, PYTHONPATH=path)
    assert manifest["metrics"]["backend"] == "auto-gptq"
    return out / "checkpoint"


def test_auto_gptq_quantizes_the_shipped_base(by_auto_gptq: Path) -> None:
    from safetensors import safe_open

    with safe_open(by_auto_gptq / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert len([name for name in names if name.endswith(".qweight")]) == 8 * 7
    assert not {name for name in names if name.endswith(".bias") or name.startswith("lm_head")}


def test_gptqmodel_gives_the_same_answers_from_the_checkpoint_of_auto_gptq(
    inputs: dict[str, Path], by_auto_gptq: Path
) -> None:
    """In this process, whose transformers is the project's own."""
    _needs_gptqmodel()
    from stages.intent import parity
    from stages.intent.rows import read_rows
    from stages.runtime.gptq import load
    from stages.runtime.hf import HFEngine

    rows = read_rows(inputs["data"] / "validation.jsonl")[:100]
    merged = parity.answers("merged", HFEngine.load(inputs["model"], device="cuda"), rows)
    quantized = load(by_auto_gptq, kernel="torch", device="cuda")
    compared = parity.compare("auto-gptq", rows, merged, parity.answers("gptq", quantized, rows))
    assert compared.drop <= 0.02
    assert compared.agreement["exact"]["value"] >= 0.95
