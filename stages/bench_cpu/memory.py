"""What each variant takes, in a process that nothing runs beside, mapped and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.bench_cpu.dataset import cycle
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.quality import Record
from stages.bench_cpu.variants import LLAMA_CPP, Variant
from stages.intent.rows import Row


def measure(
    params: Params, variants: Sequence[Variant], rows: Sequence[Row], threads: int, record: Record
) -> dict[str, dict[str, Any]]:
    """Loads every variant alone and has it answer requests.

    Returns:
        By variant: `memory`, with `mapped` and `read` (null for transformers), each as the
        worker's `memory`; `peak_rss_bytes` of the mapped one, and `before_load_rss_bytes`.
    """
    asked = cycle([row.to_json() for row in rows], 0, params.latency_rows)
    found = {}
    for variant in variants:
        modes: dict[str, Any] = {"mapped": None, "read": None}
        before_bytes = 0
        for mode in ("mapped", "read") if variant.engine == LLAMA_CPP else ("mapped",):
            with Worker(
                variant, threads, params.context_tokens, use_mmap=mode == "mapped"
            ) as worker:
                worker.answer(asked, "constrained")
                modes[mode] = worker.memory()
                if mode == "mapped":
                    before_bytes = worker.loaded["before_load_rss_bytes"]
            record({"phase": "memory", "variant": variant.name, "mode": mode, **modes[mode]})
        print(
            f"memory {variant.name}: {modes['mapped']['peak_rss_bytes'] / 1e6:.0f} MB", flush=True
        )
        found[variant.name] = {
            "memory": modes,
            "peak_rss_bytes": modes["mapped"]["peak_rss_bytes"],
            "before_load_rss_bytes": before_bytes,
        }
    return found
