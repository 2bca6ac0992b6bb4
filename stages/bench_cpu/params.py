"""The CPU bench's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from stages.core.errors import InputError

DTYPES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


@dataclass(frozen=True, kw_only=True)
class Params:
    """How much to measure.

    Attributes:
        threads: threads of a timed request; 0 for all usable cores.
        rows: rows for accuracy; 0 for all.
        free_rows: of these, rows that are also answered without the catalog's constraint.
        hf_rows: of these, rows that the transformers baseline answers.
        hf_dtypes: dtypes of the baseline; empty for none.
        latency_rows: timed requests a round and variant.
        rounds: rounds, in each of which every variant takes its turn.
        warmup: requests that do not count, before each turn of a variant.
        sweep_rounds: rounds in which one variant runs on 1, 2, 4 ... threads; 0 for none.
        kl_rows: of `rows`, those whose right answers' tokens are held against the reference's
            distributions; 0 for none.
        llama_bench_runs: repetitions of llama-bench; 0 for none.
        context_tokens: longest prompt with its answer.
        seed: which rows are taken.
    """

    threads: int = 0
    rows: int = 0
    free_rows: int = 60
    hf_rows: int = 120
    hf_dtypes: tuple[str, ...] = ("float32",)
    latency_rows: int = 16
    rounds: int = 5
    warmup: int = 2
    sweep_rounds: int = 2
    kl_rows: int = 32
    llama_bench_runs: int = 3
    context_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "threads", "rows", "free_rows", "warmup", "sweep_rounds", "kl_rows", "llama_bench_runs",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("hf_rows", "latency_rows", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.context_tokens < 64:
            raise InputError(f"context_tokens must be at least 64, not {self.context_tokens}")
        for dtype in self.hf_dtypes:
            if dtype not in DTYPES:
                raise InputError(f"hf_dtypes: {dtype!r} is none of {', '.join(DTYPES)}")
