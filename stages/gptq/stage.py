"""Quantizes the merged model for GPUs by GPTQ or AWQ, and holds the checkpoint against it.

Outputs: `checkpoint/`, in the layout that transformers, GPTQModel and vLLM read, and `parity.json`
(the rows used and, for both models, what `parity.Parity.to_record` gives).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.gptq.params import MIN_CALIBRATION_ROWS, Params
from stages.intent import parity
from stages.intent.prompt import render
from stages.intent.rows import Row, read_rows
from stages.runtime.folders import TOKENIZER_FILES, transformers_folder

CHECKPOINT = "checkpoint"
SCRATCH = ".scratch"
AWQ_WIDTH = 64
"""What GPTQModel's AWQ needs every width of a layer to be a multiple of."""
AUTO_GPTQ_WIDTH = 32
"""The same for auto-gptq, which packs whole words."""
_NAMED_ROWS = 5


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes the checkpoint and its comparison to `out`.

    Raises:
        InputError: the model or the rows cannot be used, or a GPU is asked for and there is none.
        StageFailed: the parity gate.
    """
    merged, data = transformers_folder(inputs["model"]), inputs["data"]
    _check_widths(merged, params)
    calibration = parity.sample(
        read_rows(data / "train.jsonl"), params.calibration_rows, params.seed
    )
    if len(calibration) < MIN_CALIBRATION_ROWS:
        raise InputError(
            f"train.jsonl has {len(calibration)} rows: calibration needs at least "
            f"{MIN_CALIBRATION_ROWS}"
        )
    validation = read_rows(data / "validation.jsonl")
    refuse_leaks(calibration, validation, "validation.jsonl")
    refuse_leaks(calibration, read_rows(data / "test.jsonl"), "test.jsonl")
    held_out = parity.sample(validation, params.parity_rows, params.seed)

    backend = _backend(params)
    scratch = out / SCRATCH
    scratch.mkdir()
    backend.isolate(scratch)
    device = backend.choose_device(params.device)
    name = f"{params.method.upper()} {params.bits} bit"
    print(f"{name}: {len(calibration)} calibration rows on {device}", flush=True)
    checkpoint = out / CHECKPOINT
    backend.quantize(params, merged, calibration, checkpoint, device)
    for file in ("generation_config.json", *TOKENIZER_FILES):
        if (merged / file).is_file():
            shutil.copyfile(merged / file, checkpoint / file)

    engine: Any = backend.merged_engine(merged, device)
    texts = [render(row.prompt) for row in held_out]
    expected_ids = [engine.encode(text) for text in texts]
    reference = parity.answers("merged", engine, held_out)
    del engine
    engine = backend.quantized_engine(checkpoint, device)
    parity.check_tokens(CHECKPOINT, texts, expected_ids, map(engine.encode, texts))
    baseline = parity.compare("merged", held_out, reference, reference)
    compared = parity.compare(name, held_out, reference, parity.answers(name, engine, held_out))
    agreed = compared.agreement["exact"]["value"]
    print(
        f"parity {name}: {compared.exact:.1%} exact, merged {baseline.exact:.1%}, same answer on "
        f"{agreed:.1%} of {len(held_out)} rows",
        flush=True,
    )
    parity.gate(compared, params.max_drop, min_agreement=0.0)
    records = [one.to_record() for one in (baseline, compared)]
    text = json.dumps({"schema": 1, "rows": len(held_out), "models": records}, indent=2)
    (out / "parity.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(scratch)
    return {
        "backend": params.backend,
        "device": device,
        "method": params.method,
        "bits": params.bits,
        "group_size": params.group_size,
        "size_bytes": sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")),
        "calibration_rows": len(calibration),
        "parity": {record["name"]: record["exact"] for record in records},
    }


def _backend(params: Params) -> Any:
    """The module that quantizes."""
    if params.backend == "auto-gptq":
        from stages.gptq import auto_gptq_backend

        return auto_gptq_backend
    from stages.gptq import backend

    return backend


def _check_widths(merged: Path, params: Params) -> None:
    """Refuses a group size that does not divide what a layer takes in, and odd widths."""
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    head_width = config.get("head_dim") or config["hidden_size"] // heads
    widths = {
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "attention width": heads * head_width,
    }
    for name, width in widths.items():
        if width % params.group_size:
            raise InputError(
                f"group_size {params.group_size} does not divide the model's {name} of {width}: "
                "set gptq.group_size to a smaller one"
            )
    widths["key width"] = (config.get("num_key_value_heads") or heads) * head_width
    for name, width in widths.items():
        odd = f"the model's {name} of {width} is no multiple of"
        if params.method == "awq" and width % AWQ_WIDTH:
            raise InputError(f"{odd} {AWQ_WIDTH}, which AWQ needs: set gptq.method to gptq")
        if params.backend == "auto-gptq" and width % AUTO_GPTQ_WIDTH:
            raise InputError(
                f"{odd} {AUTO_GPTQ_WIDTH}, which auto-gptq needs: set gptq.backend to gptqmodel"
            )


def refuse_leaks(calibration: Sequence[Row], held_out: Sequence[Row], file: str) -> None:
    """Refuses calibration rows whose message stands in held-out rows too, whatever its case.

    Raises:
        InputError: the first held-out rows found, counted from 1; `file` may have blank lines too.
    """
    used = {_folded(row) for row in calibration}
    found = [number for number, row in enumerate(held_out, 1) if _folded(row) in used]
    if found:
        named = ", ".join(map(str, found[:_NAMED_ROWS]))
        rest = f" and {len(found) - _NAMED_ROWS} more" if len(found) > _NAMED_ROWS else ""
        raise InputError(
            f"rows of {file} that repeat a calibration row, blank lines not counted: {named}{rest};"
            " take them out of train.jsonl or make the data anew"
        )


def _folded(row: Row) -> tuple[str, ...]:
    return (*row.catalog, " ".join(row.message.casefold().split()))
