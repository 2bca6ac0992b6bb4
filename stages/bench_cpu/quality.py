"""What the variants get right. Nothing is timed here, so that one process a core may run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from stages.bench_cpu import breakdown
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.variants import TRANSFORMERS, Variant
from stages.intent.metrics import Score, score, summarize
from stages.intent.rows import Row
from stages.runtime.share import share_cores

_CHUNK_ROWS = 20
_REPORT_EVERY_SEC = 3.0
Record = Callable[[dict[str, Any]], None]


def plan(variants: Sequence[Variant], cores: int) -> tuple[int, int]:
    """How many processes may run at once and the threads of each."""
    return share_cores(cores, len(variants), max(variant.memory_bytes for variant in variants))


def measure(
    params: Params, variants: Sequence[Variant], rows: Sequence[Row], cores: int, record: Record
) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """Asks every variant, constrained and free.

    Args:
        params: how many rows.
        variants: what to ask.
        rows: the chosen rows; each variant answers the first part that is its own.
        cores: cores to use.
        record: takes each raw sample.

    Returns:
        By variant: `accuracy` and `free`, as `intent.metrics.summarize` gives them with
        `breakdown.by_slice`, and `confidence`: `coverage` and `calibration` of the constrained
        answers, as `breakdown` does. Then by variant the texts of those.
    """
    processes, threads = plan(variants, cores)
    lock = threading.Lock()

    def locked(sample: dict[str, Any]) -> None:
        with lock:
            record(sample)

    def one(variant: Variant) -> tuple[dict[str, Any], list[str]]:
        own = rows[: params.hf_rows] if variant.engine == TRANSFORMERS else rows
        with Worker(variant, threads, params.context_tokens) as worker:
            free_rows = own[: params.free_rows]
            scores, samples = _answer(worker, own, "constrained", locked)
            free = _answer(worker, free_rows, "free", locked)[0] if free_rows else None
        probabilities = [sample["probability"] for sample in samples]
        found = {
            "accuracy": _accuracy(own, scores),
            "free": _accuracy(free_rows, free) if free else None,
            "confidence": {
                "coverage": breakdown.coverage(probabilities, scores),
                "calibration": breakdown.calibration(probabilities, scores),
            },
        }
        return found, [sample["text"] for sample in samples]

    # The slowest first, so that no core waits for it at the end.
    order = sorted(
        variants, key=lambda variant: (variant.engine != TRANSFORMERS, -variant.size_bytes)
    )
    with ThreadPoolExecutor(processes) as pool:
        results = dict(zip([v.name for v in order], pool.map(one, order), strict=True))
    names = [variant.name for variant in variants]
    return {name: results[name][0] for name in names}, {name: results[name][1] for name in names}


def _accuracy(rows: Sequence[Row], scores: Sequence[Score]) -> dict[str, Any]:
    return {**summarize(rows, scores), "by_slice": breakdown.by_slice(rows, scores)}


def _answer(
    worker: Worker, rows: Sequence[Row], mode: str, record: Record
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Every row's score, and the worker's samples."""
    name, scores, shown_sec = worker.variant.name, list[Score](), time.monotonic()
    answered: list[dict[str, Any]] = []
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = rows[start : start + _CHUNK_ROWS]
        samples = worker.answer([row.to_json() for row in part], mode)
        answered += samples
        for index, (row, sample) in enumerate(zip(part, samples, strict=True), start):
            scores.append(score(row, sample["text"]))
            outcome = {**sample, "exact": scores[-1].exact}
            record({"phase": "accuracy", "variant": name, "row": index, "mode": mode, **outcome})
        if time.monotonic() - shown_sec >= _REPORT_EVERY_SEC:
            shown_sec = time.monotonic()
            exact = sum(one.exact for one in scores) / len(scores)
            print(f"accuracy {name} {mode}: {len(scores)}/{len(rows)} {exact:.1%}", flush=True)
    exact = sum(one.exact for one in scores) / len(scores)
    print(f"accuracy {name} {mode}: {exact:.1%} of {len(rows)}", flush=True)
    return scores, answered
