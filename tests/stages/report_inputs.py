"""Artifact folders as the stages write them, for the report's tests: every figure is test data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stages.core import artifact, provenance
from stages.intent.metrics import wilson

ROWS = 900
STATISTICS = {"source": "generator", "rows": {"train": 3000, "validation": 300, "test": ROWS}}
# Name, bits a weight, share right, p50 in ms, peak in MB.
GGUF = (
    ("F16", 16.0, 0.9878, 21.4, 96.2),
    ("Q8_0", 8.6, 0.9878, 17.9, 88.3),
    ("Q6_K", 6.7, 0.9867, 18.8, 86.1),
    ("Q5_K_M", 5.9, 0.9867, 18.1, 85.4),
    ("Q4_K_M", 5.2, 0.9856, 16.2, 84.2),
    ("Q4_0", 4.9, 0.9800, 15.9, 84.0),
    ("Q3_K_M", 4.5, 0.9567, 17.2, 83.1),
    ("Q2_K", 3.9, 0.8300, 16.9, 82.2),
)


def rate(share: float, trials: int) -> dict[str, Any]:
    """A rate as `intent.metrics.rate` gives it."""
    hits = round(share * trials)
    low, high = wilson(hits, trials)
    return {"value": hits / trials, "low": low, "high": high, "n": trials}


def accuracy(share: float, trials: int = ROWS, invented: int = 0) -> dict[str, Any]:
    """Rates as `intent.metrics.summarize` gives them."""
    return {
        "exact": rate(share, trials),
        "action": rate(1 - (1 - share) / 9, trials),
        "product": rate(1 - (1 - share) / 2, trials),
        "quantity": rate(1 - (1 - share) / 2, trials),
        "invalid_json": 0,
        "invented_products": invented,
        "by_language": {
            "croatian": rate(share - 0.006, trials // 3),
            "english": rate(min(1.0, share + 0.004), trials // 3),
            "spanish": rate(min(1.0, share + 0.002), trials // 3),
        },
        "by_slice": {
            "near_miss": {"false": rate(share, trials // 2), "true": rate(share / 2, trials // 2)},
            "mention": {
                "full": rate(share, trials // 3),
                "partial": rate(share - 0.1, trials // 3),
            },
            "row": {str(n): rate(1.0, 1) for n in range(40)},
        },
    }


def variant(name: str, bits: float, share: float, p50_ms: float, peak_mb: float) -> dict[str, Any]:
    """One GGUF variant of metrics.json."""
    return {
        "name": name,
        "file": f"Cartwright-Intent-7.3M-v1.0-{name}.gguf",
        "encoding": name,
        "engine": "llama.cpp",
        "size_bytes": round(7.34e6 * bits / 8),
        "bits_per_weight": bits,
        "parameters": 7_340_000,
        "accuracy": accuracy(share),
        "free": accuracy(share - 0.02, 100, invented=2),
        "confidence": confidence(share),
        "fidelity": None if name == "F16" else fidelity(0.4 / bits**2),
        "latency_sec": latency(p50_ms / 1e3),
        "latency_mode": "constrained",
        "latency_known_sec": latency(p50_ms / 1e3 * 0.4),
        "energy_joules_per_request": p50_ms / 100,
        "latency_free_sec": latency(p50_ms / 1e3 * 2.4),
        "prompt_tokens_per_sec": 178_000 / p50_ms,
        "decode_tokens_per_sec": 9_800 / p50_ms,
        "llama_bench": {
            "prompt_tokens": 180,
            "decode_tokens": 24,
            "prompt_tokens_per_sec": 190_000 / p50_ms,
            "decode_tokens_per_sec": 12_800 / p50_ms,
            "decode_at_depth_tokens_per_sec": 11_900 / p50_ms,
        },
        "load_sec": 0.031,
        "start_sec": 0.4,
        "memory": {"mapped": memory(peak_mb), "read": memory(peak_mb - 3)},
        "peak_rss_bytes": round(peak_mb * 1e6),
        "before_load_rss_bytes": 61_000_000,
    }


def memory(peak_mb: float) -> dict[str, int]:
    """What a process of its own took."""
    return {
        "peak_rss_bytes": round(peak_mb * 1e6),
        "pss_bytes": round(peak_mb * 0.9e6),
        "rss_file_bytes": 40_000_000,
        "rss_anonymous_bytes": round((peak_mb - 40) * 1e6),
    }


def fidelity(kl_nats: float) -> dict[str, Any]:
    """How near to F16."""
    return {
        "agreement": rate(1 - kl_nats / 10, ROWS),
        "kl_divergence_nats": kl_nats,
        "kl_p99_nats": kl_nats * 20,
        "tokens": 800,
        "rows": 32,
    }


def baseline(p50_ms: float = 214.0, peak_mb: float = 598.0) -> dict[str, Any]:
    """The transformers baseline of metrics.json."""
    return variant("transformers FP32", 32.0, 0.9850, p50_ms, peak_mb) | {
        "file": None,
        "encoding": "FP32",
        "engine": "transformers",
        "accuracy": accuracy(0.985, 200),
        "before_load_rss_bytes": 480_000_000,
        "load_sec": 0.81,
        "latency_known_sec": None,
        "llama_bench": None,
        "memory": {"mapped": memory(peak_mb), "read": None},
    }


def confidence(share: float, trials: int = ROWS) -> dict[str, Any]:
    """Coverage and calibration as `bench_cpu.breakdown` gives them."""
    shares = (0.5, 0.8, 0.9, 1.0)
    return {
        "coverage": [
            {
                "share": one,
                "threshold": 1 - one / 2,
                "exact": rate(1 - one**4 * (1 - share), round(one * trials)),
            }
            for one in shares
        ],
        "calibration": {
            "bins": [
                {"low": 0.5, "high": 0.6, "mean_probability": 0.55, "exact": rate(0.6, 20)},
                {"low": 0.9, "high": 1.0, "mean_probability": 0.99, "exact": rate(0.99, trials)},
            ],
            "expected_error": 0.0123,
        },
    }


def latency(p50_sec: float) -> dict[str, float | int]:
    """Percentiles of a hundred requests."""
    return {
        "p50": p50_sec,
        "p50_low": p50_sec * 0.97,
        "p50_high": p50_sec * 1.03,
        "p90": p50_sec * 1.21,
        "p99": p50_sec * 1.7,
        "mean": p50_sec,
        "n": 100,
    }


def metrics(variants: Sequence[dict[str, Any]] | None = None) -> dict[str, Any]:
    """metrics.json of bench-cpu."""
    return {
        "schema": 2,
        "reference": "F16",
        "host": {
            "system": "Linux",
            "kernel": "6.1.0",
            "machine": "x86_64",
            "python": "3.11.2",
            "cpu_model": "Test CPU @ 2.60GHz",
            "cpu_flags": ["avx2", "avx512f"],
            "usable_cores": 2,
            "memory_limit_bytes": 25_000_000_000,
            "gpus": [],
            "kernel_backend": "libggml-cpu-icelake.so",
        },
        "variants": [*(variant(*one) for one in GGUF), baseline()]
        if variants is None
        else variants,
        "noise": {
            "variant": "Q4_K_M",
            "p50_sec": [0.0162, 0.0165],
            "relative": 0.0185,
            "round_spread": 0.06,
            "warning": None,
        },
        "threads": {
            "variant": "Q4_K_M",
            "points": [
                {
                    "threads": threads,
                    "latency_sec": latency(0.0162 * 1.8 / threads),
                    "prompt_tokens_per_sec": 6_000.0 * threads,
                    "decode_tokens_per_sec": 400.0 * threads,
                }
                for threads in (1, 2)
            ],
        },
        "settings": {"rows": ROWS, "latency_rows": 20, "rounds": 5, "threads": 2, "seed": 0},
    }


def learning_curve() -> list[dict[str, Any]]:
    """Thirty logged steps, every fifth evaluated."""
    curve: list[dict[str, Any]] = []
    for step in range(10, 310, 10):
        loss = 0.004 + 0.9 * math.exp(-step / 45)
        entry = {
            "step": step,
            "loss": loss * (1 + 0.15 * math.sin(step)),
            "learning_rate": 2e-3 * (1 - step / 310),
            "elapsed_sec": 0.6 * step,
        }
        if step % 50 == 0:
            entry |= {
                "eval_loss": loss * 1.2,
                "eval_exact_match": 0.99 - 0.6 * math.exp(-step / 60),
            }
        curve.append(entry)
    return curve


def write_inputs(
    folder: Path,
    variants: Sequence[dict[str, Any]] | None = None,
    gpu: dict[str, Any] | None = None,
) -> dict[str, Path]:
    """Every input of the report stage, each a complete artifact.

    Args:
        folder: where to.
        variants: of the CPU bench; the usual ones if None.
        gpu: metrics.json of bench-gpu; no such input, nor gptq, if None.
    """
    measured = metrics(variants)
    parity = {
        "schema": 1,
        "rows": 200,
        "models": [
            {
                "name": name,
                "exact": 0.985,
                "drop": 0.0,
                "agreement": {"exact": rate(0.995, 200)},
                "lost_rows": [],
                "gained_rows": [],
            }
            for name in ("merged", "F16", "Q8_0", "Q4_K_M")
        ],
    }
    files: dict[str, dict[str, Any]] = {
        "data": {"statistics.json": STATISTICS, "train.jsonl": {}},
        "base": {"config.json": {}},
        "train": {"learning_curve.json": learning_curve()},
        "gguf": {"parity.json": parity, "variants.json": []},
        "bench-cpu": {"metrics.json": measured},
    }
    for one in measured["variants"]:
        if one["file"]:
            files["gguf"][one["file"]] = one["name"]
    needs: dict[str, tuple[str, ...]] = {
        "data": (),
        "base": (),
        "train": ("base", "data"),
        "gguf": ("train", "data"),
        "bench-cpu": ("gguf", "train", "data"),
    }
    if gpu is not None:
        files |= {"gptq": {"parity.json": parity}, "bench-gpu": {"metrics.json": gpu}}
        needs |= {"gptq": ("train", "data"), "bench-gpu": ("gptq", "train", "data")}
    for stage, contents in files.items():
        (folder / stage).mkdir(parents=True)
        for name, content in contents.items():
            (folder / stage / name).write_text(json.dumps(content), encoding="utf-8")
        manifest = provenance.make_manifest(
            stage=stage,
            params={"seed": 7},
            inputs=provenance.describe_inputs({need: folder / need for need in needs[stage]}),
            files=artifact.inventory(folder / stage),
            metrics={},
            started_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
            wall_sec=12.5,
            given={"key": artifact.content_identity(artifact.inventory(folder / stage))},
        )
        artifact.write_manifest(folder / stage, manifest)
    return {stage: folder / stage for stage in files}
