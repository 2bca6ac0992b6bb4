"""The gptq stage without GPTQModel: parameters, leaks, what it refuses before it loads anything."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import InputError
from stages.gptq import auto_gptq_backend
from stages.gptq.params import MIN_CALIBRATION_ROWS, Params
from stages.gptq.stage import refuse_leaks, run
from stages.intent.rows import Answer, Row, write_rows

LLAMA = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
OLD = {"backend": "auto-gptq"}
CATALOG = ("Honey (350g jar)", "Black Tea (20 bags)")


def row(message: str, catalog: tuple[str, ...] = CATALOG) -> Row:
    return Row(catalog, message, Answer("add", catalog[0], 1))


def rows(name: str, count: int) -> list[Row]:
    return [row(f"{name}: honey for {number}") for number in range(1, count + 1)]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Inputs that the stage takes, up to the point where it needs GPTQModel."""
    found = {name: tmp_path / name for name in ("model", "data")}
    for folder in found.values():
        folder.mkdir()
    (found["model"] / "config.json").write_text(json.dumps(LLAMA))
    for split in ("train", "validation", "test"):
        write_rows(found["data"] / f"{split}.jsonl", rows(split, 20))
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"bits": 5}, "bits: gptq can have 2, 3, 4, 8, not 5"),
        ({"method": "awq", "bits": 8}, "bits: awq can have 4, not 8"),
        ({"group_size": 48}, "group_size must be one of 16, 32, 64, 128, not 48"),
        ({"group_size": -1}, "group_size must be one of"),
        ({"damp_percent": 0.0}, "damp_percent must lie between 0 and 1, not 0"),
        ({"damp_percent": 1.0}, "damp_percent must lie between 0 and 1, not 1"),
        ({"calibration_rows": 15}, "calibration_rows must be at least 16"),
        ({"batch_rows": 0}, "batch_rows must be at least 1, not 0"),
        ({"parity_rows": 0}, "parity_rows must be at least 1: nothing is written unchecked"),
        ({"max_drop": 1.01}, "max_drop must be a share from 0 to 1, not 1.01"),
        ({"max_drop": -0.01}, "max_drop must be a share from 0 to 1"),
        ({**OLD, "method": "awq"}, "method awq is not in auto-gptq: set backend to gptqmodel"),
        ({**OLD, "device": "cpu"}, "device cpu is not in auto-gptq, which quantizes on an NVIDIA"),
        ({**OLD, "symmetric": False}, "symmetric: false is not sound in auto-gptq"),
        ({**OLD, "bits": 5}, "bits: gptq can have 2, 3, 4, 8, not 5"),
    ],
)
def test_bad_parameters(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Params(**values)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "values",
    [
        {},
        *({"bits": bits} for bits in (2, 3, 4, 8)),
        *({"group_size": size} for size in (16, 32, 64, 128)),
        {"method": "awq"},
        {"calibration_rows": 16, "batch_rows": 1, "parity_rows": 1, "max_drop": 0.0},
        {"max_drop": 1.0, "desc_act": True, "symmetric": False},
        *({**OLD, "bits": bits, "desc_act": bits == 4} for bits in (2, 3, 4, 8)),
        {**OLD, "device": "cuda", "damp_percent": 0.1},
    ],
)
def test_good_parameters(values: dict[str, Any]) -> None:
    params = Params(**values)
    assert {name: getattr(params, name) for name in values} == values


@pytest.mark.parametrize(
    ("rope", "scaling"),
    [
        ({"rope_type": "default", "rope_theta": 5e5}, None),
        (
            {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0},
            {"rope_type": "llama3", "factor": 32.0},
        ),
    ],
)
def test_a_configuration_of_transformers_5_in_the_words_of_4(
    tmp_path: Path, rope: dict[str, Any], scaling: dict[str, Any] | None
) -> None:
    new = {**LLAMA, "dtype": "bfloat16", "rope_parameters": rope}
    old = {**LLAMA, "torch_dtype": "bfloat16", "rope_theta": 5e5, "rope_scaling": scaling}
    for given in (new, old):
        (tmp_path / "config.json").write_text(json.dumps(given))
        assert auto_gptq_backend._config(tmp_path) == old


# ------------------------------------------------------------------ leaks


@pytest.mark.parametrize(
    "message", ["Add two honeys", "add two honeys", "ADD  TWO\thoneys ", "  add two HONEYS"]
)
def test_a_message_in_other_case_or_spacing_is_a_leak(message: str) -> None:
    held_out = [row("no tea"), row("tea please"), row(message)]
    with pytest.raises(InputError, match=r"^rows of test\.jsonl that repeat .* counted: 3; take "):
        refuse_leaks([row("Add two honeys"), row("one honey")], held_out, "test.jsonl")


@pytest.mark.parametrize(
    "other",
    [
        row("Add two honeys", ("Honey (350g jar)", "Green Tea (20 bags)")),
        row("Add two honeys", CATALOG[:1]),
        row("Add three honeys"),
        row("Addtwo honeys"),
    ],
)
def test_another_catalog_or_message_is_no_leak(other: Row) -> None:
    refuse_leaks([row("Add two honeys")], [other], "validation.jsonl")


def test_a_leak_is_one_whatever_its_answer() -> None:
    other = replace(row("Add two honeys"), answer=Answer("remove", CATALOG[1], 7))
    with pytest.raises(InputError, match=r"^rows of validation\.jsonl .* counted: 1; take "):
        refuse_leaks([row("Add two honeys")], [other], "validation.jsonl")


def test_five_leaks_are_named_and_all_are_counted() -> None:
    calibration, clean = rows("train", 7), rows("test", 2)
    with pytest.raises(InputError) as caught:
        refuse_leaks(calibration, [*clean, *calibration[:5]], "t.jsonl")
    assert ": 3, 4, 5, 6, 7; take them" in str(caught.value)
    with pytest.raises(InputError) as caught:
        refuse_leaks(calibration, [*clean, *calibration], "t.jsonl")
    assert ": 3, 4, 5, 6, 7 and 2 more; take them" in str(caught.value)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_stage_looks_for_leaks_in_both_held_out_splits(
    inputs: dict[str, Path], out: Path, split: str
) -> None:
    leaked = [*rows(split, 3), row("TRAIN: honey for 9")]
    write_rows(inputs["data"] / f"{split}.jsonl", leaked)
    with pytest.raises(InputError, match=rf"^rows of {split}\.jsonl .* counted: 4; take"):
        run(Params(group_size=64), inputs, out)
    assert list(out.iterdir()) == []


def test_a_leak_is_named_by_its_row_where_the_file_has_blank_lines(
    inputs: dict[str, Path], out: Path
) -> None:
    path = inputs["data"] / "test.jsonl"
    write_rows(path, [*rows("test", 2), row("train: honey for 4")])
    path.write_text("\n".join(f"{line}\n" for line in path.read_text().splitlines()))
    with pytest.raises(InputError, match=r"blank lines not counted: 3; take"):
        run(Params(group_size=64), inputs, out)


# ------------------------------------------------------------------ models and rows


@pytest.mark.parametrize(
    ("changed", "params", "sentence"),
    [
        (
            {"hidden_size": 192, "head_dim": 32},
            Params(),
            "group_size 128 does not divide the model's hidden_size of 192",
        ),
        (
            {"intermediate_size": 800},
            Params(group_size=64),
            "group_size 64 does not divide the model's intermediate_size of 800",
        ),
        ({"head_dim": 24}, Params(), "does not divide the model's attention width of 192"),
        (
            {"head_dim": 24},
            Params(method="awq", group_size=64),
            "the model's key width of 96 is no multiple of 64, which AWQ needs",
        ),
        (
            {"intermediate_size": 800},
            Params(method="awq", group_size=32),
            "the model's intermediate_size of 800 is no multiple of 64",
        ),
        (
            {"intermediate_size": 784},
            Params(**OLD, group_size=16),
            "the model's intermediate_size of 784 is no multiple of 32, which auto-gptq needs",
        ),
    ],
)
def test_widths_that_do_not_fit_are_refused(
    inputs: dict[str, Path], out: Path, changed: dict[str, int], params: Params, sentence: str
) -> None:
    (inputs["model"] / "config.json").write_text(json.dumps({**LLAMA, **changed}))
    with pytest.raises(InputError, match=sentence):
        run(params, inputs, out)
    assert list(out.iterdir()) == []


def test_too_few_training_rows(inputs: dict[str, Path], out: Path) -> None:
    few = MIN_CALIBRATION_ROWS - 1
    write_rows(inputs["data"] / "train.jsonl", rows("train", few))
    with pytest.raises(InputError, match=r"train\.jsonl has 15 rows: .* needs at least 16"):
        run(Params(), inputs, out)


def test_a_folder_without_a_model(inputs: dict[str, Path], out: Path) -> None:
    (inputs["model"] / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no model: there is no config\.json"):
        run(Params(), inputs, out)


@pytest.mark.parametrize(
    "params", [Params(), Params(method="awq"), Params(group_size=64), Params(calibration_rows=16)]
)
def test_sound_inputs_get_as_far_as_the_library(
    inputs: dict[str, Path], out: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing above is refused for another reason than the one that is named."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "gptqmodel", None)
    with pytest.raises(ModuleNotFoundError, match="gptqmodel"):
        run(params, inputs, out)


def test_the_other_backend_does_not_touch_gptqmodel(
    inputs: dict[str, Path], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("gptqmodel", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="peft"):
        run(Params(**OLD), inputs, out)
