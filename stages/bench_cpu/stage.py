"""Runs the bench: accuracy, then time, then memory; `stages.bench_cpu` says what it writes."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.bench_cpu import (
    dataset,
    fidelity,
    llama_bench,
    machine,
    memory,
    quality,
    timing,
)
from stages.bench_cpu.params import Params
from stages.bench_cpu.variants import gguf_variants, transformers_variants
from stages.core import hostinfo
from stages.core.errors import InputError


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures the models of the inputs and writes `metrics.json` and `samples.jsonl`.

    Args:
        params: how much to measure.
        inputs: `gguf`, a folder with models; `data`, a folder with test.jsonl (without it the
            sample that ships here); `model`, the transformers baseline (without it none).
        out: an empty folder.

    Raises:
        InputError: an input is missing, unknown or holds nothing of use.
        StageFailed: the process of a variant died.
    """
    _check(inputs)
    variants = gguf_variants(inputs["gguf"])
    if "model" in inputs:
        variants += transformers_variants(inputs["model"], params.hf_dtypes)
    file = dataset.dataset_file(inputs.get("data"))
    rows = dataset.choose(file, params.rows, params.seed)
    cores = hostinfo.usable_cores()
    threads = params.threads or cores
    print(f"{len(variants)} variants, {len(rows)} rows, {threads} threads", flush=True)
    read = machine.read_bytes_per_sec(threads)
    print(f"memory is read at {read / 1e9:.1f} GB/s", flush=True)

    with (out / "samples.jsonl").open("w", encoding="utf-8") as samples:

        def record(sample: dict[str, Any]) -> None:
            samples.write(json.dumps(sample, ensure_ascii=False) + "\n")

        host = {
            **hostinfo.describe(),
            **machine.describe(),
            "memory_read_bytes_per_sec": read,
        }
        right, texts = quality.measure(params, variants, rows, cores, record)
        reference, near = fidelity.measure(params, variants, rows, texts, out, cores, record)
        speed, noise, backend = timing.measure(params, variants, rows, threads, record)
        sweep = timing.sweep(params, variants, rows, threads, record)
        taken = memory.measure(params, variants, rows, threads, record)
        prompts = [speed[variant.name].pop("prompt_tokens") for variant in variants]
        prompt_tokens = round(statistics.median(prompts))
        own = llama_bench.measure(params, variants, prompt_tokens, threads)
    metrics = {
        "schema": 2,
        "host": {
            **host,
            "kernel_backend": backend["library"],
            "kernel_features": backend["features"],
        },
        "variants": [
            {
                **variant.to_record(),
                **right[variant.name],
                "fidelity": near[variant.name],
                **speed[variant.name],
                "llama_bench": own[variant.name],
                **taken[variant.name],
            }
            for variant in variants
        ],
        "reference": reference,
        "noise": noise,
        "threads": sweep,
        "settings": {
            "dataset": "built-in sample" if file == dataset.SAMPLE else file.name,
            "rows": len(rows),
            "free_rows": min(params.free_rows, len(rows)),
            "hf_rows": min(params.hf_rows, len(rows)),
            "latency_rows": params.latency_rows,
            "rounds": params.rounds,
            "warmup": params.warmup,
            "sweep_rounds": params.sweep_rounds,
            "kl_rows": min(params.kl_rows, len(rows)),
            "llama_bench_runs": params.llama_bench_runs,
            "threads": threads,
            "pinned_cores": machine.choose_cores(threads),
            "accuracy_threads": quality.plan(variants, cores)[1],
            "context_tokens": params.context_tokens,
            "seed": params.seed,
        },
    }
    (out / "metrics.json").write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if noise["warning"]:
        print(f"warning: {noise['warning']}", flush=True)
    return {entry["name"]: _headline(entry) for entry in metrics["variants"]}


def _check(inputs: Mapping[str, Path]) -> None:
    if "gguf" not in inputs:
        raise InputError("no --input gguf=DIR: name the folder with the GGUF files to measure")
    unknown = sorted(set(inputs) - {"gguf", "data", "model"})
    if unknown:
        raise InputError(f"--input {unknown[0]}: the inputs are gguf, data and model")


def _headline(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "exact": entry["accuracy"]["exact"]["value"],
        "latency_p50_sec": entry["latency_sec"]["p50"],
        "peak_rss_bytes": entry["peak_rss_bytes"],
    }
