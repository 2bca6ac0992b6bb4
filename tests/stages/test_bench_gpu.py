"""The GPU bench without torch: parameters, and what it refuses before it looks for a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.bench_gpu.params import Params
from stages.bench_gpu.stage import run
from stages.core.errors import InputError
from stages.intent.rows import Answer, Row, write_rows


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"variants": ()}, "variants: name one or more, none twice"),
        ({"variants": ("fp16", "nf4", "fp16")}, "variants: name one or more, none twice"),
        ({"variants": ("fp8",)},
         "variants: 'fp8' is none of fp16, bf16, nf4 and no INPUT:KERNEL, as gptq:marlin"),
        ({"variants": ("fp16", "gptq:")}, "variants: 'gptq:' is none of"),
        ({"variants": (":marlin",)}, "variants: ':marlin' is none of"),
        ({"engines": ()}, "engines: name one or more of generate, graph, none twice"),
        ({"engines": ("graph", "graph")}, "engines: name one or more of"),
        ({"engines": ("vllm",)}, "engines: name one or more of"),
        ({"batches": ()}, "batches: give one or more sizes of at least 1"),
        ({"batches": (1, 0)}, "batches: give one or more sizes of at least 1"),
        ({"prompt_tokens": 0}, "prompt_tokens must be at least 1, not 0"),
        ({"min_requests": 0}, "min_requests must be at least 1, not 0"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"request_rows": 0}, "request_rows must be at least 1, not 0"),
        ({"new_tokens": 3}, "new_tokens must be at least 4, not 3"),
        ({"max_sec": 0.0}, "max_sec must be above 0, not 0.0"),
        ({"accuracy_rows": -1}, "accuracy_rows must be 0 or more, not -1"),
        ({"context_tokens": 63}, "context_tokens must be at least 64, not 63"),
    ],
)  # fmt: skip
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Params(**values)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"variants": ("nf4",), "engines": ("generate",), "batches": (1,)},
        {"variants": ("awq:marlin", "gptq:exllama_v2")},
        {"prompt_tokens": 1, "new_tokens": 4, "min_requests": 1, "rounds": 1, "request_rows": 1},
    ],
)
def test_good_parameters(values: dict[str, Any]) -> None:
    params = Params(**values)
    assert {name: getattr(params, name) for name in values} == values


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Inputs that the bench takes, up to the point where it needs torch."""
    found = {name: tmp_path / name for name in ("model", "data", "gptq")}
    for folder in found.values():
        folder.mkdir()
    for name in ("model", "gptq"):
        (found[name] / "config.json").write_text(json.dumps({}))
    row = Row(("Honey (350g jar)",), "one honey", Answer("add", "Honey (350g jar)", 1))
    write_rows(found["data"] / "test.jsonl", [row])
    return found


@pytest.mark.parametrize("name", ["model", "data", "gptq"])
def test_an_input_that_is_not_given_is_named(
    inputs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    del inputs[name]
    with pytest.raises(InputError, match=rf"^no --input {name}=DIR: the bench reads model, data"):
        run(Params(variants=("fp16", "gptq:marlin")), inputs, tmp_path)


def test_an_input_without_a_model_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["gptq"] / "config.json").unlink()
    with pytest.raises(InputError, match=r"gptq holds no model: there is no config\.json in it"):
        run(Params(variants=("fp16", "gptq:marlin")), inputs, tmp_path)


def test_damaged_rows_are_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    (inputs["data"] / "test.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"test\.jsonl:1: "):
        run(Params(variants=("fp16",)), inputs, tmp_path)
