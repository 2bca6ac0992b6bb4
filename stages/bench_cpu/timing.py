"""How fast the variants are and what they take: one works at a time, in turns.

Each variant has a process of its own that stays alive from round to round, so that a slow minute of
the machine falls on all of them alike; models too large to be held together are loaded anew for
each turn. One variant takes part twice, as if it were two: the difference is noise. Afterwards the
same variant runs on 1, 2, 4 ... threads, in rounds as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stages.bench_cpu.dataset import cycle
from stages.bench_cpu.energy import Energy
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.quality import Record
from stages.bench_cpu.variants import LLAMA_CPP, Variant
from stages.core import figures
from stages.core.hostinfo import memory_limit_bytes
from stages.intent.rows import Row

_SPEED_TOKENS = 24
# Free decoding and raw speed take this part of a round's rows each.
_PART = 4
_TWIN_PREFERENCE = "Q4_K_M"
_FOOTPRINT_FACTOR = 2


@dataclass
class _Timed:
    """One participant and what was measured of it."""

    variant: Variant
    label: str
    threads: int
    phase: str = "latency"
    worker: Worker | None = None
    loaded: dict[str, Any] = field(default_factory=dict)
    constrained: list[list[float]] = field(default_factory=list)
    known: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    speed: list[dict[str, Any]] = field(default_factory=list)


def measure(
    params: Params, variants: Sequence[Variant], rows: Sequence[Row], threads: int, record: Record
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Times every variant.

    Args:
        params: rounds and rows.
        variants: what to time.
        rows: the chosen rows, used from the first on.
        threads: threads of each engine.
        record: takes each raw sample.

    Returns:
        By variant its speed; the noise; the CPU backend that llama.cpp chose.
    """
    twin = _twin(variants)
    participants = [_Timed(variant, variant.name, threads) for variant in variants]
    participants.append(_Timed(twin, f"{twin.name} (again)", threads))
    _in_turns(participants, params, params.rounds, rows, record)
    first = next(one for one in participants if one.variant is twin)
    noise = figures.noise(twin.name, first.constrained, participants[-1].constrained)
    backend = participants[-1].loaded["backend"]
    return {one.label: _summary(one) for one in participants[:-1]}, noise, backend


def sweep(
    params: Params, variants: Sequence[Variant], rows: Sequence[Row], threads: int, record: Record
) -> dict[str, Any] | None:
    """Times the variant that stands for all on 1, 2, 4 ... and on `threads` threads.

    Returns:
        `variant`, and `points` of `threads`, `latency_sec`, `prompt_tokens_per_sec` and
        `decode_tokens_per_sec`; None where no rounds are asked for.
    """
    if not params.sweep_rounds:
        return None
    counts = sorted({threads, *(1 << power for power in range(threads.bit_length()))})
    twin = _twin(variants)
    participants = [
        _Timed(twin, f"{twin.name} on {count} threads", count, "threads") for count in counts
    ]
    _in_turns(participants, params, params.sweep_rounds, rows, record)
    keys = ("latency_sec", "prompt_tokens_per_sec", "decode_tokens_per_sec")
    points = []
    for one in participants:
        summary = _summary(one)
        points.append({"threads": one.threads, **{key: summary[key] for key in keys}})
    return {"variant": twin.name, "points": points}


def _in_turns(
    participants: Sequence[_Timed],
    params: Params,
    rounds: int,
    rows: Sequence[Row],
    record: Record,
) -> None:
    held_bytes = sum(one.variant.memory_bytes for one in participants) * _FOOTPRINT_FACTOR
    together = held_bytes < memory_limit_bytes() // 2
    lines = [row.to_json() for row in rows]
    with ExitStack() as stack:
        for number in range(rounds):
            # Every round starts with another variant, so that none always follows the same one.
            shift = number % len(participants)
            for one in (*participants[shift:], *participants[:shift]):
                if one.worker is None:
                    one.worker = stack.enter_context(
                        Worker(one.variant, one.threads, params.context_tokens, pin=True)
                    )
                    one.loaded = one.worker.loaded
                # Threads that slept since the last turn wake up here, not in what is timed.
                one.worker.answer(cycle(lines, 0, params.warmup), "constrained")
                _take_turn(one, one.worker, params, lines, number, record)
                if not together:
                    one.worker.close()
                    one.worker = None
            print(_progress(number + 1, rounds, participants), flush=True)


def _twin(variants: Sequence[Variant]) -> Variant:
    """The variant that is measured twice: the usual choice, or the smallest GGUF model."""
    files = [variant for variant in variants if variant.engine == LLAMA_CPP]
    return next((v for v in files if v.encoding == _TWIN_PREFERENCE), files[-1])


def _take_turn(
    one: _Timed, worker: Worker, params: Params, lines: Sequence[str], number: int, record: Record
) -> None:
    count, part = params.latency_rows, -(-params.latency_rows // _PART)
    start = number * count
    energy = Energy()
    before = energy.read()
    timed = worker.answer(cycle(lines, start, count), "constrained")
    one.joules.append(energy.joules_since(before))
    is_ours = one.variant.engine == LLAMA_CPP
    known = worker.answer(cycle(lines, start, count), "known") if is_ours else []
    free = worker.answer(cycle(lines, start, part), "free")
    speed = worker.speed(cycle(lines, start, part), _SPEED_TOKENS)
    one.constrained.append([sample["sec"] for sample in timed])
    one.known.extend(sample["sec"] for sample in known)
    one.free.extend(sample["sec"] for sample in free)
    one.speed.extend(speed)
    timed_by_mode = {"constrained": timed, "known": known, "free": free, "speed": speed}
    for mode, samples in timed_by_mode.items():
        phase = "speed" if mode == "speed" and one.phase == "latency" else one.phase
        for index, sample in enumerate(samples):
            row = (start + index) % len(lines)
            where = {"phase": phase, "variant": one.label, "round": number, "row": row}
            record({**where, "mode": mode, **sample})


def _progress(done: int, rounds: int, participants: Sequence[_Timed]) -> str:
    middle = {
        one.label: figures.percentile([s for part in one.constrained for s in part], 0.5)
        for one in participants
    }
    fastest = min(middle, key=middle.__getitem__)
    return f"latency round {done}/{rounds}: fastest {fastest} {middle[fastest] * 1e3:.1f} ms"


def _summary(one: _Timed) -> dict[str, Any]:
    prompt_tokens = sum(sample["prompt_tokens"] for sample in one.speed)
    decode_tokens = sum(sample["decode_tokens"] for sample in one.speed)
    return {
        "latency_sec": _requests([sec for part in one.constrained for sec in part]),
        "latency_mode": "constrained",
        "energy_joules_per_request": _joules_per_request(one),
        "latency_known_sec": _requests(one.known) if one.known else None,
        "latency_free_sec": _requests(one.free),
        "prompt_tokens": prompt_tokens / len(one.speed),
        "prompt_tokens_per_sec": prompt_tokens / sum(s["prompt_sec"] for s in one.speed),
        "decode_tokens_per_sec": decode_tokens / sum(s["decode_sec"] for s in one.speed),
        "load_sec": one.loaded["load_sec"],
        "start_sec": one.loaded["start_sec"],
    }


def _joules_per_request(one: _Timed) -> float | None:
    known = [joules for joules in one.joules if joules is not None]
    requests = sum(len(part) for part in one.constrained)
    return sum(known) / requests if len(known) == len(one.joules) else None


def _requests(seconds: Sequence[float]) -> dict[str, float | int]:
    low, high = figures.median_interval(seconds)
    return {**figures.latency(seconds), "p50_low": low, "p50_high": high}
