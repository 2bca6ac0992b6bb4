"""metrics.json as bench-gpu writes it, for the report's tests: every figure is test data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.core import figures
from tests.stages.report_inputs import accuracy

PROMPT_TOKENS, NEW_TOKENS, ROUNDS = 192, 64, 3
BANDWIDTH_BYTES_PER_SEC = 3.0e12
AGAIN = " (again)"
# By variant: the linear layers' class, weights in MB, and the share of test rows answered right.
VARIANTS = {
    "fp16": ("Linear", 2_472, 0.930),
    "nf4": ("Linear4bit", 1_070, 0.902),
    "gptq:marlin": ("MarlinLinear", 1_030, 0.928),
    "gptq:triton": ("TritonLinear", 1_040, 0.928),
}
# Milliseconds of a decoding step and of reading the prompts, by engine, batch and variant.
STEPS_MS: dict[tuple[str, int], dict[str, tuple[float, float]]] = {
    ("generate", 1): {
        "fp16": (12.0, 13.0),
        "nf4": (20.0, 22.0),
        "gptq:marlin": (20.0, 21.0),
        "gptq:triton": (25.0, 27.0),
    },
    ("generate", 16): {
        "fp16": (12.2, 20.0),
        "nf4": (21.0, 30.0),
        "gptq:marlin": (20.4, 26.0),
        "gptq:triton": (26.0, 60.0),
    },
    ("graph", 1): {
        "fp16": (2.0, 6.0),
        "nf4": (2.4, 9.0),
        "gptq:marlin": (1.25, 6.5),
        "gptq:triton": (2.9, 14.0),
    },
    ("graph", 16): {
        "fp16": (2.2, 15.0),
        "nf4": (3.4, 22.0),
        "gptq:marlin": (2.21, 15.1),
        "gptq:triton": (4.4, 50.0),
    },
}
# The A/A pair: how much slower the second process of fp16 was, by batch.
AGAIN_SLOWER = {1: 0.01, 16: 0.02}


def metrics(
    variants: Sequence[str] = tuple(VARIANTS),
    engines: Sequence[str] = ("generate", "graph"),
    batches: Sequence[int] = (1, 16),
    *,
    process_bytes: bool = True,
) -> dict[str, Any]:
    """All of it.

    Args:
        variants: of `VARIANTS`, the first is what the others are held against.
        engines: of `STEPS_MS`.
        batches: of `STEPS_MS`.
        process_bytes: whether the driver tells a process's memory.
    """
    first = f"{variants[0]} {engines[-1]}"
    labels = [f"{variant} {engine}" for engine in engines for variant in variants]
    loaded = {label: _loaded(label, process_bytes) for label in (*labels, first + AGAIN)}
    cells = [_cell(label, batch, process_bytes) for batch in batches for label in labels]
    cells += [_cell(first + AGAIN, batch, process_bytes) for batch in batches]
    captured = [label for label in labels if label.endswith(" graph")]
    return {
        "schema": 1,
        "host": {
            "system": "Linux",
            "cpu_model": "Test CPU @ 2.60GHz",
            "gpu": "Test GPU 80GB",
            "driver": "580.1",
            "cuda": "13.0",
            "power_limit_watts": 700.0,
            "sm_clock_mhz": 1980,
            "memory_clock_mhz": 2619,
        },
        "copy_bytes_per_sec": BANDWIDTH_BYTES_PER_SEC,
        "loaded": loaded,
        "cells": cells,
        "requests": {
            label: figures.latency([_step_ms(label, 1) / 1e3 * n for n in (9, 10, 11)])
            for label in captured
        },
        "accuracy": {
            label: accuracy(VARIANTS[label.partition(" ")[0]][2], 600) for label in captured
        },
        "profiles": [_profile(label, batch) for batch in batches for label in captured],
        "noise": [_noise(first, batch) for batch in batches],
        "settings": {
            "rows": 600,
            "prompt_tokens": PROMPT_TOKENS,
            "new_tokens": NEW_TOKENS,
            "rounds": ROUNDS,
            "min_requests": 30,
            "max_sec": 10.0,
            "seed": 0,
        },
    }


def _parts(label: str) -> tuple[str, str]:
    variant, engine = label.removesuffix(AGAIN).split(" ")
    return variant, engine


def _step_ms(label: str, batch: int) -> float:
    variant, engine = _parts(label)
    step, _ = STEPS_MS[engine, batch][variant]
    return step * (1 + AGAIN_SLOWER[batch] if label.endswith(AGAIN) else 1)


def _loaded(label: str, process_bytes: bool) -> dict[str, Any]:
    kernel, weights_mb, _ = VARIANTS[_parts(label)[0]]
    return {
        "load_sec": 1.5,
        "kernel": kernel,
        "dtype": "float16",
        "weights_bytes": weights_mb * 1_000_000,
        "steady_allocated_bytes": weights_mb * 1_000_000 + 8_000_000,
        "steady_process_bytes": weights_mb * 1_000_000 + 500_000_000 if process_bytes else None,
    }


def _cell(label: str, batch: int, process_bytes: bool) -> dict[str, Any]:
    variant, engine = _parts(label)
    first_token_sec = STEPS_MS[engine, batch][variant][1] / 1e3
    decode_sec = _step_ms(label, batch) / 1e3 * (NEW_TOKENS - 1)
    weights_bytes = VARIANTS[variant][1] * 1_000_000
    peak_bytes = weights_bytes + 28_000_000 * batch
    latency = figures.latency([first_token_sec + decode_sec] * 30)
    decoded = batch * (NEW_TOKENS - 1) / decode_sec
    return {
        "label": label,
        "variant": variant,
        "engine": engine,
        "batch": batch,
        "latency_sec": latency,
        "first_token_sec": figures.latency([first_token_sec] * 30),
        "by_round_p50_sec": [latency["p50"]] * ROUNDS,
        "tokens_per_sec": batch * NEW_TOKENS / latency["p50"],
        "decode_tokens_per_sec": decoded,
        "energy_joules_per_request": 300 * latency["p50"] / batch,
        "peak_allocated_bytes": peak_bytes,
        "peak_reserved_bytes": peak_bytes + 50_000_000,
        "process_bytes": peak_bytes + 550_000_000 if process_bytes else None,
        "first_tokens": [1] * NEW_TOKENS,
        "memory_bandwidth_share": decoded / batch * weights_bytes / BANDWIDTH_BYTES_PER_SEC,
    }


def _profile(label: str, batch: int) -> dict[str, Any]:
    step_sec = _step_ms(label, batch) / 1e3
    shares = {
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_f16_s161616gemm>(Params)": (65, 0.50),
        "_attend_one_kernel": (16, 0.15),
        "void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor>(int)": (33, 0.1),
        "void at::native::vectorized_elementwise_kernel<2, at::native::MulFunctor>(int)": (16, 0.1),
        "void (anonymous namespace)::softmax_warp<float, 8>(float*)": (1, 0.05),
        "_add_norm_kernel": (33, 0.03),
        "Memcpy DtoD (Device -> Device)": (1.5, 0.01),
    }
    return {
        "label": label,
        "batch": batch,
        "kernels": [
            {"kernel": name, "calls": calls, "sec": share * step_sec}
            for name, (calls, share) in shares.items()
        ],
    }


def _noise(label: str, batch: int) -> dict[str, Any]:
    first, again = (
        [[_cell(one, batch, True)["latency_sec"]["p50"]]] * ROUNDS for one in (label, label + AGAIN)
    )
    return {"batch": batch, **figures.noise(label, first, again)}
