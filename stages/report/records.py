"""The variants of metrics.json, checked: a folder that a user names may hold anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.report import recommend
from stages.report.schema import Memory, Requests, Variant

_RATE_KEYS = ("value", "low", "high", "n")
_ACCURACY_KEYS = ("exact", "action", "product", "quantity")
_MEMORY_KEYS = tuple(Memory.__annotations__)
_BENCH_KEYS = ("prompt_tokens", "decode_tokens")


def variants(path: Path, metrics: Mapping[str, Any], hashes: Mapping[str, str]) -> list[Variant]:
    """Every variant, GGUF files first, the largest of them first.

    Args:
        path: Of metrics.json, for sentences.
        metrics: What it holds.
        hashes: SHA-256 of GGUF files by name.

    Raises:
        InputError: There is none, two have one name, or one is not as bench-cpu writes it.
    """
    records = metrics.get("variants")
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: lists no variants; run bench-cpu on at least one GGUF file")
    found = [_variant(path, number, record, hashes) for number, record in enumerate(records, 1)]
    names = [one["name"] for one in found]
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two variants have the same name")
    return sorted(found, key=lambda one: (one["engine"] != "llama.cpp", -one["size_bytes"]))


def _variant(path: Path, number: int, record: Any, hashes: Mapping[str, str]) -> Variant:
    """One variant of metrics.json, checked."""
    try:
        known_sec = record.get("latency_known_sec")
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
            "fidelity": _fidelity(record["fidelity"]),
            "latency_sec": requests(record["latency_sec"]),
            "latency_mode": str(record.get("latency_mode", "constrained")),
            "latency_known_sec": None if known_sec is None else requests(known_sec),
            "energy_joules_per_request": record.get("energy_joules_per_request"),
            "latency_free_sec": None if free_sec is None else requests(free_sec),
            "prompt_tokens_per_sec": record.get("prompt_tokens_per_sec"),
            "decode_tokens_per_sec": record.get("decode_tokens_per_sec"),
            "llama_bench": _llama_bench(record["llama_bench"]),
            "load_sec": float(record["load_sec"]),
            "memory": {
                "mapped": {key: record["memory"]["mapped"][key] for key in _MEMORY_KEYS},
                "read": record["memory"]["read"]
                and {key: record["memory"]["read"][key] for key in _MEMORY_KEYS},
            },
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


def requests(record: Mapping[str, Any]) -> Requests:
    """The time of requests, as `timing` summarizes it."""
    return {
        "p50_low": float(record["p50_low"]),
        "p50_high": float(record["p50_high"]),
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
        "by_slice": {
            key: {value: _rate(one) for value, one in values.items()}
            for key, values in record["by_slice"].items()
        },
    }


def _fidelity(record: Any) -> Any:
    if record is None:
        return None
    return {
        "agreement": _rate(record["agreement"]),
        "kl_divergence_nats": record["kl_divergence_nats"],
        "kl_p99_nats": record["kl_p99_nats"],
        "tokens": int(record["tokens"]),
        "rows": int(record["rows"]),
    }


def _llama_bench(record: Any) -> Any:
    if record is None:
        return None
    rates = ("prompt_tokens_per_sec", "decode_tokens_per_sec", "decode_at_depth_tokens_per_sec")
    return {
        **{key: int(record[key]) for key in _BENCH_KEYS},
        **{key: float(record[key]) for key in rates},
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
