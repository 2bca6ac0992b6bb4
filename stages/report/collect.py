"""From the artifacts' metrics and manifests to the report's content; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import artifact
from stages.core.errors import InputError
from stages.report import recommend, records
from stages.report.gpu.section import section
from stages.report.params import Params
from stages.report.records import read_json
from stages.report.schema import (
    SCHEMA_VERSION,
    CurvePoint,
    Gpu,
    LineageStep,
    Plots,
    Point,
    Report,
    Slice,
    Threads,
    Variant,
)

_METRICS_SCHEMA = 2
_COSTS = {"latency": "latency_p50_sec", "memory": "peak_rss_bytes", "size": "size_bytes"}
# A slice of more values than a reader compares is left to `invoke evaluate`.
_SLICE_VALUES = 12
_CURVE_KEYS = ("loss", "learning_rate", "eval_loss", "eval_exact_match", "elapsed_sec")
_ORDER = ("data", "base", "train", "gguf", "gptq", "awq", "bench-cpu", "bench-gpu")


def collect(params: Params, inputs: Mapping[str, Path]) -> Report:
    """Reads every input and makes the report's content.

    Args:
        params: The stage's parameters.
        inputs: Artifact folders; only `bench-cpu` must be there, what else is there is shown.

    Raises:
        InputError: A file is missing or not as its stage writes it.
    """
    if "bench-cpu" not in inputs:
        raise InputError("--input bench-cpu=DIR is missing: a report needs measurements")
    manifests = {name: artifact.read_manifest(folder) for name, folder in inputs.items()}
    metrics_path = inputs["bench-cpu"] / "metrics.json"
    metrics = read_json(metrics_path)
    if not isinstance(metrics, dict) or metrics.get("schema") != _METRICS_SCHEMA:
        raise InputError(f"{metrics_path}: not metrics of schema {_METRICS_SCHEMA}; run bench-cpu")
    hashes = _file_hashes(manifests)
    variants = records.variants(metrics_path, metrics, hashes)
    noise, threads = metrics.get("noise"), _threads(metrics.get("threads"))
    host = metrics.get("host") or manifests["bench-cpu"]["host"]
    recommendation = recommend.recommend(
        variants,
        params.max_accuracy_drop,
        float(noise["relative"]) if noise else 0.0,
        str(host.get("cpu_model") or "unknown CPU"),
    )
    for variant in variants:
        variant["recommended"] = variant["name"] == recommendation["variant"]
    curve = _optional(inputs, "train", "learning_curve.json") or []
    return {
        "schema": SCHEMA_VERSION,
        "title": params.title,
        "profile": params.profile,
        "recommendation": recommendation,
        "comparison": recommend.compare(variants, recommendation["variant"]),
        "gpu": _gpu(params, inputs, manifests),
        "reference": metrics.get("reference"),
        "variants": variants,
        "plots": _plots(variants, curve, threads),
        "parity": _optional(inputs, "gguf", "parity.json"),
        "data": _optional(inputs, "data", "statistics.json"),
        "training": manifests["train"]["params"] if "train" in manifests else None,
        "host": dict(host),
        "noise": noise,
        "settings": dict(metrics.get("settings") or {}),
        "lineage": _lineage(manifests),
        "rerun": [
            # Measurements alone are of files that a user has.
            *([f"invoke run --profile {params.profile}"] if "gguf" in inputs else []),
            "invoke bench-cpu --model MODEL.gguf",
        ],
    }


def _gpu(
    params: Params, inputs: Mapping[str, Path], manifests: Mapping[str, Mapping[str, Any]]
) -> Gpu | None:
    if "bench-gpu" not in inputs:
        return None
    path = inputs["bench-gpu"] / "metrics.json"
    packages = manifests["bench-gpu"]["packages"]
    return section(path, read_json(path), packages, params.max_accuracy_drop)


def _plots(
    variants: Sequence[Variant], curve: Sequence[Mapping[str, Any]], threads: Threads | None
) -> Plots:
    """The data of every plot, as drawn."""
    chosen = next(one for one in variants if one["recommended"])
    points = [_point(one) for one in variants]
    for name, key in _COSTS.items():
        for point in points:
            point[f"front_{name}"] = _on_front(point, points, key)  # type: ignore[literal-required]
    return {
        "variants": points,
        "learning_curve": [_curve_point(one) for one in curve],
        "confidence": chosen["confidence"],
        "slices": _slices(chosen),
        "threads": threads,
    }


def _point(variant: Variant) -> Point:
    exact, latency = recommend.exact_of(variant), variant["latency_sec"]
    return {
        "name": variant["name"],
        "engine": variant["engine"],
        "recommended": variant["recommended"],
        "exact": exact["value"],
        "exact_low": exact["low"],
        "exact_high": exact["high"],
        "latency_p50_sec": latency["p50"],
        "latency_p50_low_sec": latency["p50_low"],
        "latency_p50_high_sec": latency["p50_high"],
        "peak_rss_bytes": variant["peak_rss_bytes"],
        "size_bytes": variant["size_bytes"],
        "bits_per_weight": variant["bits_per_weight"],
        "front_latency": False,
        "front_memory": False,
        "front_size": False,
    }


def _on_front(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]], cost: str) -> bool:
    """Whether no other GGUF variant is at least as good in both and better in one."""
    return point["engine"] == "llama.cpp" and not any(
        other["exact"] >= point["exact"]
        and other[cost] <= point[cost]
        and (other["exact"] > point["exact"] or other[cost] < point[cost])
        for other in points
        if other["engine"] == "llama.cpp"
    )


def _curve_point(record: Mapping[str, Any]) -> CurvePoint:
    values = {key: record.get(key) for key in _CURVE_KEYS}
    return {"step": int(record["step"]), **values}  # type: ignore[typeddict-item]


def _slices(variant: Variant) -> list[Slice]:
    """The slices with few values: one with a value a row or two says nothing."""
    by_slice = recommend.accuracy_of(variant)["by_slice"]
    return [
        {"key": key, "value": value, "exact": rate}
        for key, values in by_slice.items()
        if 1 < len(values) <= _SLICE_VALUES
        for value, rate in values.items()
    ]


def _threads(record: Any) -> Threads | None:
    if record is None:
        return None
    return {
        "variant": str(record["variant"]),
        "points": [
            {
                "threads": int(one["threads"]),
                "latency_sec": records.requests(one["latency_sec"]),
                "prompt_tokens_per_sec": float(one["prompt_tokens_per_sec"]),
                "decode_tokens_per_sec": float(one["decode_tokens_per_sec"]),
            }
            for one in record["points"]
        ],
    }


def _file_hashes(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 of the GGUF files by name."""
    files = manifests["gguf"]["files"] if "gguf" in manifests else {}
    return {name: record["sha256"] for name, record in files.items()}


def _lineage(manifests: Mapping[str, Mapping[str, Any]]) -> list[LineageStep]:
    """The artifacts in the order in which they were made."""
    names = sorted(
        manifests, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)
    )
    return [_step(manifests[name]) for name in names]


def _step(manifest: Mapping[str, Any]) -> LineageStep:
    return {
        "stage": manifest["stage"],
        "key": manifest["key"],
        "content_sha256": manifest["content_sha256"],
        "seed": manifest["seed"],
        "git": manifest["git"],
        "image": manifest["image"],
        "started_at": manifest["started_at"],
        "wall_sec": manifest["wall_sec"],
        "peak_rss_bytes": manifest["peak_rss_bytes"],
        "inputs": {one["stage"] or name: one["key"] for name, one in manifest["inputs"].items()},
        "files": [
            {"name": name, "size_bytes": one["size_bytes"], "sha256": one["sha256"]}
            for name, one in sorted(manifest["files"].items())
        ],
    }


def _optional(inputs: Mapping[str, Path], name: str, file: str) -> Any:
    """A file of an input that may have been left out."""
    return read_json(inputs[name] / file) if name in inputs else None
