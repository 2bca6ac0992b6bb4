"""From bench-gpu's metrics to the section's content; nothing is measured here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core.errors import InputError
from stages.report import figures
from stages.report.gpu.schema import (
    Gpu,
    GpuAgainstFirst,
    GpuAnswers,
    GpuCell,
    GpuLoaded,
    GpuNoise,
    GpuStep,
)
from stages.report.measured import Latency
from stages.report.recommend import listed

# Source: arXiv 2510.21970, 4-bit GPTQ of a Llama 3.2 1B on an NVIDIA T4 against FP16.
PAPER_MEMORY_LESS = 0.41
PAPER_SLOWER = 0.82

GRAPH, GENERATE = "graph", "generate"
_METRICS_SCHEMA = 1
_AGAIN = " (again)"
_PACKAGES = ("torch", "transformers", "gptqmodel", "bitsandbytes")
_KERNELS_SHOWN = 4
# Templates whose own name says nothing: what they run is their first argument.
_WRAPPERS = ("Kernel", "Kernel2", "device_kernel")
_ROUNDING = 1e-9


def section(path: Path, metrics: Any, packages: Mapping[str, str], max_drop: float) -> Gpu:
    """Checks the metrics and makes the section's content.

    Args:
        path: Where they were read, for the errors.
        metrics: metrics.json of bench-gpu.
        packages: Versions by distribution, as the manifest has them; empty if not known.
        max_drop: Exact match that a variant may lose against the first and still be named the
            fastest, as a share.

    Raises:
        InputError: They are not as bench-gpu writes them.
    """
    if not isinstance(metrics, dict) or metrics.get("schema") != _METRICS_SCHEMA:
        raise InputError(f"{path}: not metrics of schema {_METRICS_SCHEMA}; run bench-gpu")
    try:
        return _section(metrics, packages, max_drop)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not as bench-gpu writes it ({type(error).__name__}: {error}); "
            "run bench-gpu again"
        ) from error


def _section(metrics: Mapping[str, Any], packages: Mapping[str, str], max_drop: float) -> Gpu:
    records: dict[tuple[str, int], Mapping[str, Any]] = {}
    for record in metrics["cells"]:
        if records.setdefault((record["label"], record["batch"]), record) is not record:
            raise ValueError(f"{record['label']} is there twice at batch {record['batch']}")
    first = str(metrics["cells"][0]["variant"])
    noise = [_noise(one, records) for one in metrics["noise"]]
    cells = [
        _cell(record, records, first, {one["batch"]: one["relative"] for one in noise})
        for (label, _), record in records.items()
        if not label.endswith(_AGAIN)
    ]
    loaded = [_loaded(label, metrics["loaded"][label]) for label in _labels(cells)]
    answers = [_answers(label, metrics) for label in metrics["accuracy"]]
    return {
        "first": first,
        "sentence": _fastest(cells, answers, noise, first, max_drop, metrics["host"]["gpu"]),
        "paper": _paper(cells, first),
        "host": _host(metrics, packages),
        "settings": dict(metrics["settings"]),
        "loaded": loaded,
        "cells": cells,
        "noise": noise,
        "answers": answers,
        "steps": _steps(metrics["profiles"], records),
    }


def _labels(cells: Sequence[GpuCell]) -> list[str]:
    return list(dict.fromkeys(f"{one['variant']} {one['engine']}" for one in cells))


def _host(metrics: Mapping[str, Any], packages: Mapping[str, str]) -> dict[str, str]:
    host = metrics["host"]
    return {
        "GPU": str(host["gpu"]),
        "driver": str(host["driver"]),
        "CUDA": str(host["cuda"]),
        "SM clock": f"{host['sm_clock_mhz']:,} MHz",
        "memory clock": f"{host['memory_clock_mhz']:,} MHz",
        "power limit": f"{host['power_limit_watts']:,.0f} W",
        "memory copies": f"{_positive(metrics, 'copy_bytes_per_sec') / 1e12:.2f} TB/s",
        **{name: packages[name] for name in _PACKAGES if name in packages},
    }


def _loaded(label: str, record: Mapping[str, Any]) -> GpuLoaded:
    variant, _, engine = label.rpartition(" ")
    return {
        "variant": variant,
        "engine": engine,
        "kernel": str(record["kernel"]),
        "dtype": str(record["dtype"]),
        "load_sec": _positive(record, "load_sec"),
        "weights_bytes": round(_positive(record, "weights_bytes")),
        "steady_allocated_bytes": round(_positive(record, "steady_allocated_bytes")),
        "steady_process_bytes": record["steady_process_bytes"],
    }


def _noise(
    record: Mapping[str, Any], records: Mapping[tuple[str, int], Mapping[str, Any]]
) -> GpuNoise:
    label, batch = record["variant"], record["batch"]
    pair = [
        _positive(records[one, batch], "decode_tokens_per_sec") for one in (label, label + _AGAIN)
    ]
    request, decode = float(record["relative"]), max(pair) / min(pair) - 1
    if not 0 <= request < math.inf:
        raise ValueError(f"the noise at batch {batch} is {request}")
    return {
        "batch": batch,
        "engine": label.rpartition(" ")[2],
        "request": request,
        "decode": decode,
        "relative": max(request, decode),
        "round_spread": float(record["round_spread"]),
        "warning": record["warning"],
    }


def _cell(
    record: Mapping[str, Any],
    records: Mapping[tuple[str, int], Mapping[str, Any]],
    first: str,
    noise: Mapping[int, float],
) -> GpuCell:
    variant, engine, batch = record["variant"], record["engine"], record["batch"]
    energy = float(record["energy_joules_per_request"])
    if not 0 <= energy < math.inf:
        raise ValueError(f"{record['label']} has an energy of {energy}")
    against = records[f"{first} {engine}", batch]
    return {
        "variant": variant,
        "engine": engine,
        "batch": batch,
        "decode_tokens_per_sec": _positive(record, "decode_tokens_per_sec"),
        "request_tokens_per_sec": _positive(record, "tokens_per_sec"),
        "latency_sec": _latency(record["latency_sec"]),
        "first_token_sec": _latency(record["first_token_sec"]),
        "peak_allocated_bytes": round(_positive(record, "peak_allocated_bytes")),
        "process_bytes": record["process_bytes"],
        "energy_joules_per_request": energy,
        "memory_bandwidth_share": _positive(record, "memory_bandwidth_share"),
        "against_first": None if variant == first else _against(record, against, noise[batch]),
    }


def _against(record: Mapping[str, Any], first: Mapping[str, Any], noise: float) -> GpuAgainstFirst:
    decode, request = (
        _positive(record, key) / _positive(first, key)
        for key in ("decode_tokens_per_sec", "tokens_per_sec")
    )
    memory = _positive(record, "peak_allocated_bytes") / _positive(first, "peak_allocated_bytes")
    return {
        "decode_ratio": decode,
        "decode_within_noise": _alike(decode, noise),
        "request_ratio": request,
        "request_within_noise": _alike(request, noise),
        "memory_change": memory - 1,
    }


def _alike(ratio: float, noise: float) -> bool:
    return max(ratio, 1 / ratio) - 1 <= noise + _ROUNDING


def _answers(label: str, metrics: Mapping[str, Any]) -> GpuAnswers:
    exact = metrics["accuracy"][label]["exact"]
    return {
        "variant": label.rpartition(" ")[0],
        "latency_sec": _latency(metrics["requests"][label]),
        "exact": {
            "value": float(exact["value"]),
            "low": float(exact["low"]),
            "high": float(exact["high"]),
            "n": int(exact["n"]),
        },
    }


def _latency(record: Mapping[str, Any]) -> Latency:
    return {
        "p50": _positive(record, "p50"),
        "p90": _positive(record, "p90"),
        "p99": _positive(record, "p99"),
        "n": int(record["n"]),
    }


def _positive(record: Mapping[str, Any], key: str) -> float:
    value = float(record[key])
    if not 0 < value < math.inf:
        raise ValueError(f"{key} is {value}, which is not above 0")
    return value


def _steps(
    profiles: Sequence[Mapping[str, Any]], records: Mapping[tuple[str, int], Mapping[str, Any]]
) -> list[GpuStep]:
    """The profiles of the smallest batch; a variant whose profile saw no kernel is left out."""
    smallest = min((one["batch"] for one in profiles), default=0)
    return [
        _step(one, records[one["label"], smallest])
        for one in profiles
        if one["batch"] == smallest and one["kernels"]
    ]


def _step(profile: Mapping[str, Any], cell: Mapping[str, Any]) -> GpuStep:
    together: dict[str, tuple[float, float]] = {}
    for one in profile["kernels"]:
        calls, sec = together.get(_short(one["kernel"]), (0.0, 0.0))
        together[_short(one["kernel"])] = (calls + float(one["calls"]), sec + float(one["sec"]))
    total_sec = sum(sec for _, sec in together.values())
    if not 0 < total_sec < math.inf:
        raise ValueError(f"the kernels of {profile['label']} take {total_sec} seconds")
    longest = sorted(together.items(), key=lambda item: -item[1][1])
    shown = longest[:_KERNELS_SHOWN]
    if rest := longest[_KERNELS_SHOWN:]:
        calls, sec = (sum(column) for column in zip(*(found for _, found in rest), strict=True))
        shown.append((f"{len(rest)} others", (calls, sec)))
    return {
        "variant": cell["variant"],
        "batch": cell["batch"],
        "kernels_sec": total_sec,
        "step_sec": cell["batch"] / _positive(cell, "decode_tokens_per_sec"),
        "kernels": [
            {"kernel": name, "calls": calls, "sec": sec, "share": sec / total_sec}
            for name, (calls, sec) in shown
        ],
    }


def _short(name: str) -> str:
    """A kernel's name without namespaces, template arguments and parameters."""
    bare = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    head, *arguments = re.split(r"[<(]", bare)
    last = head.strip().rpartition("::")[2]
    if last in _WRAPPERS and arguments:
        last = re.split(r"[,>]", arguments[0])[0].strip().rpartition("::")[2]
    return last or name


def _fastest(
    cells: Sequence[GpuCell],
    answers: Sequence[GpuAnswers],
    noise: Sequence[GpuNoise],
    first: str,
    max_drop: float,
    gpu: str,
) -> str | None:
    """The fastest accurate variant at the smallest and at the largest batch."""
    captured = [one for one in cells if one["engine"] == GRAPH]
    if not captured:
        return None
    exact = {one["variant"]: one["exact"]["value"] for one in answers}
    drops = {name: exact[first] - value for name, value in exact.items()}
    batches = [one["batch"] for one in captured]
    clauses = []
    for batch in dict.fromkeys((min(batches), max(batches))):
        accepted = [
            one
            for one in captured
            if one["batch"] == batch and drops[one["variant"]] <= max_drop + _ROUNDING
        ]
        relative = next(one["relative"] for one in noise if one["batch"] == batch)
        clauses.append(f"at batch {batch} {_winner(accepted, first, relative)}")
    low = [
        f"{name} ({figures.points(drop)} below)"
        for name, drop in drops.items()
        if drop > max_drop + _ROUNDING
    ]
    return (
        f"On this GPU ({gpu}), on the graph engine, the fastest variant with an exact match within "
        f"{figures.points(max_drop)} of {first}'s is {' and '.join(clauses)}, counting whole "
        "requests" + (f"; left out: {', '.join(low)}." if low else ".")
    )


def _winner(accepted: Sequence[GpuCell], first: str, noise: float) -> str:
    """The fastest, and those that the noise does not tell from it."""
    ordered = sorted(accepted, key=lambda one: -one["request_tokens_per_sec"])
    speeds = [one["request_tokens_per_sec"] for one in ordered]
    alike = [
        one for one, speed in zip(ordered, speeds, strict=True) if _alike(speeds[0] / speed, noise)
    ]
    names = listed([one["variant"] for one in alike])
    spelled = listed([figures.per_second(speed) for speed in speeds[: len(alike)]])
    if len(alike) > 1:
        return f"{names} alike ({spelled} tokens/s, within the noise of {figures.percent(noise)})"
    against = alike[0]["against_first"]
    if against is None:
        return f"{names} itself ({spelled} tokens/s)"
    return f"{names} ({spelled} tokens/s, {figures.factor(against['request_ratio'])} {first}'s)"


def _paper(cells: Sequence[GpuCell], first: str) -> str | None:
    """What the paper reports of GPTQ, beside GPTQ here as transformers runs it."""
    smallest = min(one["batch"] for one in cells)
    ours = [
        f"{one['variant']} decodes {figures.factor(one['against_first']['decode_ratio'])} the "
        f"tokens per second of {first}"
        + (" (within the noise)" if one["against_first"]["decode_within_noise"] else "")
        + f" with {figures.change(one['against_first']['memory_change'])} VRAM"
        for one in cells
        if one["against_first"] is not None
        and (one["engine"], one["batch"]) == (GENERATE, smallest)
        and one["variant"].startswith("gptq:")
    ]
    if not ours:
        return None
    return (
        f"The paper (arXiv 2510.21970) reports {figures.percent(PAPER_MEMORY_LESS, 0)} less VRAM "
        f"and {figures.percent(PAPER_SLOWER, 0)} slower inference for 4-bit GPTQ against FP16 on "
        "an NVIDIA T4, another GPU. Here, on transformers' generate as it comes, at batch "
        f"{smallest}: {'; '.join(ours)}."
    )
