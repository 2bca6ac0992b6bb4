"""A small random model, and its checkpoints by both methods, made once for all tests."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from stages.data.generate import generate
from stages.data.rates import Rates
from stages.gptq import stage
from stages.gptq.params import Params
from stages.intent.rows import Row
from stages.runtime.hf import HFEngine
from tests.stages.in_image.small_model import write_inputs

PLAIN = Rates(**{field.name: 0.0 for field in fields(Rates)})
ROWS = {"train": 64, "validation": 24, "test": 12}
# A random model's answers hang by a hair: only that they are made and compared is tested here.
USUAL = Params(calibration_rows=24, parity_rows=4, max_drop=1.0)
LINEAR = 2 * 7
"""Layers of the small model that are quantized."""


@pytest.fixture(scope="session")
def rows() -> dict[str, list[Row]]:
    return {
        split: list(generate(4, split, count, ("english",), (2, 8), PLAIN))
        for split, count in ROWS.items()
    }


@pytest.fixture(scope="session")
def inputs(rows: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"), rows)


@pytest.fixture(scope="session")
def merged(inputs: dict[str, Path]) -> HFEngine:
    return HFEngine.load(inputs["model"] / "merged")


def _made(
    params: Params, inputs: dict[str, Path], folders: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = folders.mktemp("out")
    return out, stage.run(params, inputs, out)


@pytest.fixture(scope="session")
def gptq(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    return _made(USUAL, inputs, tmp_path_factory)


@pytest.fixture(scope="session")
def awq(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    return _made(replace(USUAL, method="awq", group_size=64), inputs, tmp_path_factory)


@pytest.fixture(scope="session")
def made(request: pytest.FixtureRequest) -> Path:
    """The checkpoint of the method that a test is run for."""
    out: Path = request.getfixturevalue(request.param)[0]
    return out / stage.CHECKPOINT
