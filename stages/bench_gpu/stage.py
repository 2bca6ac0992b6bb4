"""Runs the bench: cell by cell, variants in turns, each in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stages.bench_gpu.params import NF4, PLAIN, Params
from stages.bench_gpu.worker import Worker
from stages.core import figures, hostinfo
from stages.core.errors import InputError
from stages.intent import parity
from stages.intent.metrics import score, summarize
from stages.intent.prompt import render
from stages.intent.rows import Row, read_rows
from stages.runtime.folders import transformers_folder

GRAPH = "graph"
_AGAIN = " (again)"
_PROFILED_STEPS = 8
_CHUNK_ROWS = 250
_WARM_UP_ROWS = 5
# A request counts as one of `prompt_tokens` if it has so many within this share.
_NEAR = 0.25
Record = Callable[[dict[str, Any]], None]


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Measures what `params` names and writes `metrics.json` and `samples.jsonl`.

    Args:
        params: variants, engines, batches and how much of each.
        inputs: `model`, the merged model; `data`, a folder with test.jsonl; and each checkpoint
            that a variant names.
        out: an empty folder.

    Raises:
        InputError: there is no GPU, an input is missing, or a kernel cannot take its checkpoint.
        StageFailed: a process died, or a variant cannot do what is asked of it.
    """
    folders = _folders(params, inputs)
    rows = parity.sample(
        read_rows(inputs["data"] / "test.jsonl"), params.accuracy_rows or 1 << 62, params.seed
    )

    _require_gpu()
    from stages.bench_gpu import meter

    prompts = _prompts(params, rows, folders[params.variants[0]])
    bandwidth = meter.copy_bytes_per_sec()
    print(f"memory copies at {bandwidth / 1e12:.2f} TB/s, read and written", flush=True)
    with ExitStack() as stack, (out / "samples.jsonl").open("w", encoding="utf-8") as samples:

        def record(sample: dict[str, Any]) -> None:
            samples.write(json.dumps(sample, ensure_ascii=False) + "\n")

        workers = _start(params, folders, stack)
        loaded = {label: worker.call("load") for label, worker in workers.items()}
        for label, found in loaded.items():
            print(
                f"{label}: {found['kernel']}, {found['weights_bytes'] / 2**20:,.0f} MiB of weights,"
                f" loaded in {found['load_sec']:.1f} s",
                flush=True,
            )
        cells, profiles = [], []
        for batch in params.batches:
            measured, seen = _measure_batch(params, workers, prompts, batch, record)
            cells += [
                {
                    **cell,
                    "memory_bandwidth_share": cell["decode_tokens_per_sec"]
                    / batch
                    * loaded[cell["label"]]["weights_bytes"]
                    / bandwidth,
                }
                for cell in measured
            ]
            profiles += seen
        requests, accuracy = _answer(params, workers, rows, record)
    metrics = {
        "schema": 1,
        "host": {**hostinfo.describe(), **meter.Meter().describe()},
        "copy_bytes_per_sec": bandwidth,
        "loaded": loaded,
        "cells": cells,
        "requests": requests,
        "accuracy": accuracy,
        "profiles": profiles,
        "noise": _noise(params, cells),
        "settings": {
            "rows": len(rows),
            "prompt_tokens": params.prompt_tokens,
            "new_tokens": params.new_tokens,
            "rounds": params.rounds,
            "min_requests": params.min_requests,
            "max_sec": params.max_sec,
            "seed": params.seed,
        },
    }
    text = json.dumps(metrics, indent=1, ensure_ascii=False)
    (out / "metrics.json").write_text(text + "\n", encoding="utf-8")
    return {
        f"{cell['label']} batch {cell['batch']}": {
            "decode_tokens_per_sec": cell["decode_tokens_per_sec"],
            "peak_allocated_bytes": cell["peak_allocated_bytes"],
        }
        for cell in cells
    }


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"bench-gpu measures on an NVIDIA GPU and torch {torch.__version__} sees none here: "
            "start the container with one, or measure GGUF files by bench-cpu"
        )


def _folders(params: Params, inputs: Mapping[str, Path]) -> dict[str, Path]:
    """The model folder of each variant."""
    named = {variant.partition(":")[0] for variant in params.variants} - {*PLAIN, NF4}
    for needed in ("model", "data", *sorted(named)):
        if needed not in inputs:
            raise InputError(
                f"no --input {needed}=DIR: the bench reads model, data and checkpoints"
            )
    return {
        variant: transformers_folder(
            inputs["model" if variant in (*PLAIN, NF4) else variant.partition(":")[0]]
        )
        for variant in params.variants
    }


def _prompts(params: Params, rows: Sequence[Row], folder: Path) -> list[list[int]]:
    """Ends of test prompts, all of `prompt_tokens`, as many as the largest batch has."""
    from stages.runtime.hf import encode, load_tokenizer

    tokenizer = load_tokenizer(folder)
    wanted, length = max(params.batches), params.prompt_tokens - 1
    found = []
    for row in rows:
        ids = encode(tokenizer, render(row.prompt))
        if len(ids) >= length:
            found.append([tokenizer.bos_token_id, *ids[-length:]])
        if len(found) == wanted:
            return found
    if not found:
        raise InputError(
            f"no prompt of test.jsonl has {params.prompt_tokens} tokens: lower prompt_tokens"
        )
    return [found[number % len(found)] for number in range(wanted)]


def _start(params: Params, folders: Mapping[str, Path], stack: ExitStack) -> dict[str, Worker]:
    """A process for each variant and engine, and one more for the first variant, by label."""
    pairs = {
        f"{variant} {engine}": (variant, engine)
        for engine in params.engines
        for variant in params.variants
    }
    first, engine = params.variants[0], params.engines[-1]
    pairs[f"{first} {engine}{_AGAIN}"] = (first, engine)
    workers = {}
    for label, (variant, engine) in pairs.items():
        workers[label] = Worker(variant, engine, folders[variant])
        stack.callback(workers[label].close)
    for label, worker in workers.items():
        worker.ready()
        print(f"{label}: ready", flush=True)
    return workers


def _measure_batch(
    params: Params,
    workers: Mapping[str, Worker],
    prompts: Sequence[list[int]],
    batch: int,
    record: Record,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Times every variant and engine at one batch size; the cells, and profiles of graph steps."""
    turns: dict[str, list[dict[str, Any]]] = {label: [] for label in workers}
    for worker in workers.values():
        worker.call("begin", prompts=prompts[:batch], new_tokens=params.new_tokens)
    for number in range(params.rounds):
        for label, worker in _rotated(workers, number):
            turn = worker.call(
                "turn",
                count=-(-params.min_requests // params.rounds),
                max_sec=params.max_sec / params.rounds,
            )
            turns[label].append(turn)
            where = {"phase": "cell", "label": label, "batch": batch, "round": number}
            for sample in turn["samples"]:
                record({**where, **sample})
    cells, profiles = [], []
    for label, worker in workers.items():
        if worker.engine == GRAPH and not label.endswith(_AGAIN):
            kernels = worker.call("profile", steps=_PROFILED_STEPS)
            profiles.append({"label": label, "batch": batch, "kernels": kernels})
        cell = _cell(params, label, worker, batch, turns[label])
        cells.append({**cell, **worker.call("end")})
        print(
            f"batch {batch} {label}: {cell['decode_tokens_per_sec']:,.0f} tokens/s, p50 "
            f"{cell['latency_sec']['p50'] * 1e3:.1f} ms",
            flush=True,
        )
    return cells, profiles


def _rotated(workers: Mapping[str, Worker], number: int) -> Iterator[tuple[str, Worker]]:
    """Every round starts with another, so that none always follows the same one."""
    items = list(workers.items())
    shift = number % len(items)
    yield from items[shift:] + items[:shift]


def _cell(
    params: Params, label: str, worker: Worker, batch: int, turns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    samples = [sample for turn in turns for sample in turn["samples"]]
    latency = figures.latency([sample["sec"] for sample in samples])
    first = figures.latency([sample["first_token_sec"] for sample in samples])
    decode_sec = latency["p50"] - first["p50"]
    return {
        "label": label,
        "variant": worker.variant,
        "engine": worker.engine,
        "batch": batch,
        "latency_sec": latency,
        "first_token_sec": first,
        "by_round_p50_sec": [
            figures.percentile([sample["sec"] for sample in turn["samples"]], 0.5) for turn in turns
        ],
        "tokens_per_sec": batch * params.new_tokens / latency["p50"],
        "decode_tokens_per_sec": batch * (params.new_tokens - 1) / decode_sec,
        "energy_joules_per_request": sum(turn["energy_joules"] for turn in turns)
        / (len(samples) * batch),
    }


def _answer(
    params: Params, workers: Mapping[str, Worker], rows: Sequence[Row], record: Record
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whole requests in turns, and what the variants get right, on the graph engine."""
    asked = {
        label: worker
        for label, worker in workers.items()
        if worker.engine == GRAPH and not label.endswith(_AGAIN)
    }
    timed: dict[str, list[float]] = {label: [] for label in asked}
    scores: dict[str, list[Any]] = {label: [] for label in asked}
    about = params.prompt_tokens * (1 - _NEAR), params.prompt_tokens * (1 + _NEAR)
    for worker in asked.values():
        warm_up = [row.to_json() for row in rows[:_WARM_UP_ROWS]]
        worker.call("answer", lines=warm_up, context_tokens=params.context_tokens)
    for first in range(0, len(rows), _CHUNK_ROWS):
        part = rows[first : first + _CHUNK_ROWS]
        for label, worker in _rotated(asked, first // _CHUNK_ROWS):
            answered = worker.call(
                "answer",
                lines=[row.to_json() for row in part],
                context_tokens=params.context_tokens,
            )
            for number, (row, sample) in enumerate(zip(part, answered, strict=True), first):
                scores[label].append(score(row, sample["text"]))
                is_near = about[0] <= sample["prompt_tokens"] <= about[1]
                if is_near and len(timed[label]) < params.request_rows:
                    timed[label].append(sample["sec"])
                exact = scores[label][-1].exact
                record(
                    {"phase": "request", "label": label, "row": number, **sample, "exact": exact}
                )
    accuracy = {label: summarize(rows, found) for label, found in scores.items()}
    if not all(timed.values()):
        raise InputError(
            f"no prompt of test.jsonl has about {params.prompt_tokens} tokens: change prompt_tokens"
        )
    requests = {label: figures.latency(found) for label, found in timed.items()}
    for label in asked:
        print(
            f"requests {label}: {accuracy[label]['exact']['value']:.1%} exact, p50 "
            f"{requests[label]['p50'] * 1e3:.1f} ms, p99 {requests[label]['p99'] * 1e3:.1f} ms",
            flush=True,
        )
    return requests, accuracy


def _noise(params: Params, cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the first variant, measured as if it were two, says at each batch size."""
    label = f"{params.variants[0]} {params.engines[-1]}"
    by_label = {(cell["label"], cell["batch"]): cell for cell in cells}
    return [
        {
            "batch": batch,
            **figures.noise(
                label,
                [[sec] for sec in by_label[label, batch]["by_round_p50_sec"]],
                [[sec] for sec in by_label[label + _AGAIN, batch]["by_round_p50_sec"]],
            ),
        }
        for batch in params.batches
    ]
