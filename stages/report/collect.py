"""From the artifacts' metrics and manifests to the report's content; nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import artifact
from stages.core.errors import InputError
from stages.report import recommend
from stages.report.gpu.section import section
from stages.report.params import Params
from stages.report.schema import SCHEMA_VERSION, Gpu, Latency, LineageStep, Report, Variant

_METRICS_SCHEMA = 1
_RATE_KEYS = ("value", "low", "high", "n")
_ACCURACY_KEYS = ("exact", "action", "product", "quantity")
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
    variants = _variants(metrics_path, metrics, hashes)
    noise = metrics.get("noise")
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
        "variants": variants,
        "plots": _plots(variants, curve),
        "parity": _optional(inputs, "gguf", "parity.json"),
        "data": _optional(inputs, "data", "statistics.json"),
        "training": manifests["train"]["params"] if "train" in manifests else None,
        "host": dict(host),
        "noise": noise,
        "settings": dict(metrics.get("settings") or {}),
        "lineage": _lineage(manifests),
        "rerun": [
            f"invoke run --profile {params.profile}",
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


def _variants(path: Path, metrics: Mapping[str, Any], hashes: Mapping[str, str]) -> list[Variant]:
    records = metrics.get("variants")
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: lists no variants; run bench-cpu on at least one GGUF file")
    variants = [_variant(path, number, record, hashes) for number, record in enumerate(records, 1)]
    names = [one["name"] for one in variants]
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two variants have the same name")
    return sorted(variants, key=lambda one: (one["engine"] != "llama.cpp", -one["size_bytes"]))


def _variant(path: Path, number: int, record: Any, hashes: Mapping[str, str]) -> Variant:
    """One variant of metrics.json, checked."""
    try:
        free_sec = record.get("latency_free_sec")
        variant: Variant = {
            "name": str(record["name"]),
            "file": record.get("file"),
            "encoding": str(record["encoding"]),
            "engine": str(record["engine"]),
            "size_bytes": int(record["size_bytes"]),
            "bits_per_weight": float(record["bits_per_weight"]),
            "accuracy": _accuracy(record.get("accuracy")),
            "free": _accuracy(record.get("free")),
            "confidence": _confidence(record.get("confidence")),
            "latency_sec": _latency(record["latency_sec"]),
            "latency_mode": str(record.get("latency_mode", "constrained")),
            "latency_free_sec": None if free_sec is None else _latency(free_sec),
            "prompt_tokens_per_sec": record.get("prompt_tokens_per_sec"),
            "decode_tokens_per_sec": record.get("decode_tokens_per_sec"),
            "load_sec": float(record["load_sec"]),
            "peak_rss_bytes": int(record["peak_rss_bytes"]),
            "before_load_rss_bytes": record.get("before_load_rss_bytes"),
            "sha256": hashes.get(str(record.get("file"))),
            "recommended": False,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: variant {number} is not as bench-cpu writes it "
            f"({type(error).__name__}: {error}); run bench-cpu again"
        ) from error
    if variant["latency_sec"]["p50"] <= 0 or variant["peak_rss_bytes"] <= 0:
        raise InputError(f"{path}: variant {number} has a latency or memory that is not above 0")
    recommend.accuracy_of(variant)
    return variant


def _latency(record: Mapping[str, Any]) -> Latency:
    return {
        "p50": float(record["p50"]),
        "p90": float(record["p90"]),
        "p99": float(record["p99"]),
        "n": int(record["n"]),
    }


def _accuracy(record: Any) -> Any:
    if record is None:
        return None
    languages = {name: _rate(one) for name, one in record["by_language"].items()}
    return {
        **{key: _rate(record[key]) for key in _ACCURACY_KEYS},
        "invalid_json": int(record["invalid_json"]),
        "invented_products": int(record["invented_products"]),
        "by_language": languages,
    }


def _confidence(record: Any) -> Any:
    if record is None:
        return None
    calibration = record["calibration"]
    return {
        "coverage": [
            {
                "share": float(one["share"]),
                "threshold": float(one["threshold"]),
                "exact": _rate(one["exact"]),
            }
            for one in record["coverage"]
        ],
        "calibration": {
            "bins": [
                {
                    **{key: float(one[key]) for key in ("low", "high", "mean_probability")},
                    "exact": _rate(one["exact"]),
                }
                for one in calibration["bins"]
            ],
            "expected_error": float(calibration["expected_error"]),
        },
    }


def _rate(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in _RATE_KEYS}


def _plots(variants: list[Variant], curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of every plot, as drawn."""
    points = [
        {
            "name": one["name"],
            "engine": one["engine"],
            "recommended": one["recommended"],
            "exact": recommend.exact_of(one)["value"],
            "exact_low": recommend.exact_of(one)["low"],
            "exact_high": recommend.exact_of(one)["high"],
            "latency_p50_sec": one["latency_sec"]["p50"],
            "latency_p90_sec": one["latency_sec"]["p90"],
            "peak_rss_bytes": one["peak_rss_bytes"],
            "size_bytes": one["size_bytes"],
            "bits_per_weight": one["bits_per_weight"],
        }
        for one in variants
    ]
    confidence = next(one["confidence"] for one in variants if one["recommended"])
    return {"variants": points, "learning_curve": curve, "confidence": confidence}


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


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error})") from error
