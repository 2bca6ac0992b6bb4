"""The section's text and tables: written once, for the page, report.md and the docs."""

from __future__ import annotations

from typing import NamedTuple

from stages.report import figures
from stages.report.gpu.schema import Gpu, GpuCell

TITLE = "On a GPU"
_UNKNOWN = "not known"


class Block(NamedTuple):
    """A table with its title, and what a reader has to know about it."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def introduction(gpu: Gpu) -> list[str]:
    """Paragraphs above the tables: the answer, what to be careful of, the machine."""
    warnings = [
        f"Careful, at batch {one['batch']}: {one['warning']}."
        for one in gpu["noise"]
        if one["warning"]
    ]
    host = ", ".join(
        value if name == "GPU" else f"{name} {value}" for name, value in gpu["host"].items()
    )
    return [*([gpu["sentence"]] if gpu["sentence"] else []), *warnings, f"Measured on {host}."]


def blocks(gpu: Gpu) -> list[Block]:
    """Every table, in the order in which it is read."""
    batches = sorted({one["batch"] for one in gpu["cells"]})
    return [
        *(_batch(gpu, batch) for batch in batches),
        *([_against(gpu)] if any(one["against_first"] for one in gpu["cells"]) else []),
        *([_answers(gpu)] if gpu["answers"] else []),
        _loaded(gpu),
        _noise(gpu),
        *([_steps(gpu)] if gpu["steps"] else []),
    ]


def _batch(gpu: Gpu, batch: int) -> Block:
    cells = [one for one in gpu["cells"] if one["batch"] == batch]
    settings = gpu["settings"]
    return Block(
        f"Batch {batch}",
        (
            "Variant",
            "Engine",
            "Decode tok/s",
            "Whole tok/s",
            "p50",
            "p90",
            "p99",
            "First token",
            "Peak VRAM",
            "NVML",
            "Energy",
            "Bandwidth",
        ),
        [_cell(one) for one in cells],
        f"Prompts of {settings['prompt_tokens']} tokens and {settings['new_tokens']} new ones, "
        f"{min(one['latency_sec']['n'] for one in cells)} timed batches or more a row; the time is "
        "a whole batch's. Peak VRAM is what torch's allocator held, NVML the whole process with "
        "its CUDA context. Energy is the whole GPU's for each request. Bandwidth is the share of "
        "what memory copies reach here that reading the weights once a step takes."
        if batch == min(one["batch"] for one in gpu["cells"])
        else "",
    )


def _cell(cell: GpuCell) -> tuple[str, ...]:
    return (
        cell["variant"],
        cell["engine"],
        figures.per_second(cell["decode_tokens_per_sec"]),
        figures.per_second(cell["request_tokens_per_sec"]),
        *(figures.seconds(cell["latency_sec"][key]) for key in ("p50", "p90", "p99")),
        figures.seconds(cell["first_token_sec"]["p50"]),
        figures.size(cell["peak_allocated_bytes"]),
        _size(cell["process_bytes"]),
        figures.joules(cell["energy_joules_per_request"]),
        figures.percent(cell["memory_bandwidth_share"]),
    )


def _size(value_bytes: int | None) -> str:
    return _UNKNOWN if value_bytes is None else figures.size(value_bytes)


def _against(gpu: Gpu) -> Block:
    engines = sorted({one["engine"] for one in gpu["noise"]})
    unpaired = {one["engine"] for one in gpu["cells"]} - set(engines)
    note = (
        f"Ratios of tokens per second, above 1 for faster than {gpu['first']} on the same engine "
        "and batch. “Within the noise” is no difference."
    )
    if unpaired:
        note += (
            f" The noise was measured on {', '.join(engines)} and is taken for "
            f"{', '.join(sorted(unpaired))} too."
        )
    return Block(
        f"Against {gpu['first']}",
        ("Variant", "Engine", "Batch", "Decode", "Whole request", "Peak VRAM"),
        [
            (
                one["variant"],
                one["engine"],
                str(one["batch"]),
                _ratio(against["decode_ratio"], against["decode_within_noise"]),
                _ratio(against["request_ratio"], against["request_within_noise"]),
                figures.change(against["memory_change"]),
            )
            for one in gpu["cells"]
            if (against := one["against_first"]) is not None
        ],
        f"{note} {gpu['paper']}" if gpu["paper"] else note,
    )


def _ratio(ratio: float, within_noise: bool) -> str:
    return figures.factor(ratio) + (", within the noise" if within_noise else "")


def _answers(gpu: Gpu) -> Block:
    return Block(
        "Whole constrained requests",
        ("Variant", "Exact match", "95 %", "Rows", "p50", "p90", "p99", "Timed"),
        [
            (
                one["variant"],
                figures.percent(one["exact"]["value"]),
                figures.interval(one["exact"]),
                f"{one['exact']['n']:,}",
                *(figures.seconds(one["latency_sec"][key]) for key in ("p50", "p90", "p99")),
                f"{one['latency_sec']['n']:,}",
            )
            for one in gpu["answers"]
        ],
        "Answers decoded over the catalog's trie on the graph engine, one at a time, tokenizing "
        f"included; timed are rows of about {gpu['settings']['prompt_tokens']} tokens.",
    )


def _loaded(gpu: Gpu) -> Block:
    return Block(
        "Loaded",
        ("Variant", "Engine", "Kernel", "Type", "Weights", "Steady VRAM", "NVML", "Load"),
        [
            (
                one["variant"],
                one["engine"],
                one["kernel"],
                one["dtype"],
                figures.size(one["weights_bytes"]),
                figures.size(one["steady_allocated_bytes"]),
                _size(one["steady_process_bytes"]),
                figures.seconds(one["load_sec"]),
            )
            for one in gpu["loaded"]
        ],
        "Kernel is the class that the attention's linear layers really are once loaded; steady "
        "VRAM what is held with nothing running.",
    )


def _noise(gpu: Gpu) -> Block:
    return Block(
        "Noise",
        ("Batch", "Engine", "Whole request", "Decode", "Within a round"),
        [
            (
                str(one["batch"]),
                one["engine"],
                *(figures.percent(one[key]) for key in ("request", "decode", "round_spread")),
            )
            for one in gpu["noise"]
        ],
        f"Two processes of {gpu['first']}, measured as if they were two variants: how far their "
        "medians are apart, and how far at most in one round. The larger of the first two is the "
        "noise of its batch.",
    )


def _steps(gpu: Gpu) -> Block:
    rows: list[tuple[str, ...]] = []
    for step in gpu["steps"]:
        name = f"{step['variant']}, {figures.seconds(step['step_sec'])} a step"
        for kernel in step["kernels"]:
            rows.append(
                (
                    name,
                    kernel["kernel"],
                    _calls(kernel["calls"]),
                    f"{figures.significant(kernel['sec'] * 1e6)} µs",
                    figures.percent(kernel["share"], 0),
                )
            )
            name = ""
    return Block(
        "Where a decoding step's time goes",
        ("Variant", "CUDA kernel", "Calls", "Time", "Of all kernels"),
        rows,
        f"One step at batch {gpu['steps'][0]['batch']} on the graph engine. Kernels of one name, "
        "whatever their template arguments, are taken together.",
    )


def _calls(calls: float) -> str:
    return f"{calls:,.0f}" if calls == round(calls) else f"{calls:.1f}"
