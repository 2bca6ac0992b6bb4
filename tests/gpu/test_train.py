"""Fine-tuning on CUDA, by the stages' own command lines: `pytest -m gpu`, where a GPU is."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from stages.data.rates import Rates
from tests.gpu.stages import keep_result, run_stage

pytestmark = pytest.mark.gpu


def _swap_actions(path: Path) -> None:
    """Makes "add" mean "remove" in a file of rows: what the base knows is wrong then."""
    swapped = {"add": "remove", "remove": "add"}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        answer = json.loads(row["completion"])
        answer["action"] = swapped[answer["action"]]
        row["completion"] = json.dumps(answer, ensure_ascii=False)
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def _gpu_counts() -> list[int]:
    """One, and where this host has more, all of them."""
    if shutil.which("nvidia-smi") is None:
        return [1]
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    return sorted({1, len(listed.splitlines())})


@pytest.mark.parametrize("gpus", _gpu_counts())
def test_the_shipped_base_learns_what_it_did_not_know_on_gpus(gpus: int, tmp_path: Path) -> None:
    base, data, tuned = tmp_path / "base", tmp_path / "data", tmp_path / "train"
    run_stage("base", {"source": "shipped"}, {}, base)
    plain = {field.name: 0.0 for field in fields(Rates)}
    rows = {"seed": 20250, "train_rows": 4000, "validation_rows": 300, "test_rows": 600}
    shops = {"languages": ["english"], "min_catalog_lines": 2, "max_catalog_lines": 8}
    run_stage("data", rows | shops | plain, {}, data)
    for split in ("train", "validation"):
        _swap_actions(data / f"{split}.jsonl")
    steps = 240 // gpus  # the same rows, however many share a step
    params = {
        "device": "cuda",
        "processes": gpus,
        "seed": 1,
        "max_steps": steps,
        "batch_rows": 16,
        "learning_rate": 1e-3,
        "evaluation_rows": 96,
        "parity_rows": 96,
    }
    manifest = run_stage("train", params, {"base": base, "data": data}, tuned)
    metrics = manifest["metrics"]
    assert metrics["device"] == "cuda" and metrics["steps"] == steps
    assert metrics["parity_agreement"]["product"] >= 0.95
    assert metrics["exact_match"]["base"] <= 0.1
    assert metrics["exact_match"]["merged"] >= metrics["exact_match"]["base"] + 0.5
    curve = json.loads((tuned / "learning_curve.json").read_text(encoding="utf-8"))
    keep_result(f"train-{gpus}-gpu", "test_train.py", manifest, learning_curve=curve)
