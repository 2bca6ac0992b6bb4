"""Trains an adapter, merges it, and checks that the merged model answers alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from stages.core.errors import InputError
from stages.intent.rows import read_rows
from stages.runtime.folders import TOKENIZER_FILES
from stages.train import parity
from stages.train.params import Params

ADAPTER, MERGED, CURVE = "adapter", "merged", "learning_curve.json"
SCRATCH = ".scratch"


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes `adapter/`, `merged/`, `learning_curve.json` and `parity.json`.

    Raises:
        InputError: rows or base cannot be used, or a GPU is asked for and there is none.
        StageFailed: the merged model answers otherwise than the adapter.
    """
    base, data = inputs["base"], inputs["data"]
    held_out = read_rows(data / "validation.jsonl")[: params.parity_rows]

    from stages.train import backend, worker

    scratch = out / SCRATCH
    scratch.mkdir()
    backend.isolate(scratch)
    job = backend.make_job(params, base, data, out / ADAPTER, scratch)
    print(f"{len(job.train):,} training rows on {job.device}", flush=True)
    curve = backend.train(job) if params.processes == 1 else worker.launch(job, data)
    (out / CURVE).write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")

    print("merging the adapter into the full-precision base", flush=True)
    merged = out / MERGED
    merged.mkdir()
    backend.merge(base, out / ADAPTER, merged)
    for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
        if (base / name).is_file():
            shutil.copyfile(base / name, merged / name)

    print(f"comparing adapter and merged model on {len(held_out)} rows", flush=True)
    answers = {
        "base": backend.answers(backend.model_engine(base, job.device), held_out),
        "adapter": backend.answers(backend.adapter_engine(job), held_out),
        "merged": backend.answers(backend.model_engine(merged, job.device), held_out),
    }
    found = parity.compare(held_out, answers["adapter"], answers["merged"])
    found["exact_match"] = {
        name: sum(a == row.answer for a, row in zip(given, held_out, strict=True)) / len(held_out)
        for name, given in answers.items()
    }
    parity.hold(found, params.max_drop, "validation.jsonl")
    (out / "parity.json").write_text(
        json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    shutil.rmtree(scratch)
    return {
        "device": job.device,
        "steps": curve[-1]["step"],
        "rows_per_sec": next(
            (p["rows_per_sec"] for p in reversed(curve) if "rows_per_sec" in p), None
        ),
        "tokens_per_row": round(mean(len(row["input_ids"]) for row in job.train), 1),
        "final_loss": last(curve, "loss"),
        "final_eval_loss": last(curve, "eval_loss"),
        "final_eval_exact_match": last(curve, "eval_exact_match"),
        "parity_agreement": found["agreement"],
        "exact_match": found["exact_match"],
    }


def last(curve: list[dict[str, Any]], name: str) -> float:
    """The last value that a learning curve has under a name."""
    for point in reversed(curve):
        if name in point:
            return float(point[name])
    raise InputError(f"the learning curve has no {name}: train for more steps")
