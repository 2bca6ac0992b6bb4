"""The GPU bench's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from stages.core.errors import InputError

PLAIN = {"fp16": "float16", "bf16": "bfloat16"}
"""Unquantized variants and their dtype."""
NF4 = "nf4"
ENGINES = ("generate", "graph")


@dataclass(frozen=True, kw_only=True)
class Params:
    """What to measure, and how much of it.

    Attributes:
        variants: `fp16`, `bf16`, `nf4`, and `INPUT:KERNEL` for a checkpoint given as the input of
            that name, on the kernel of that name: `gptq:marlin`, `gptq:triton`, `awq:marlin`.
            The first is what the others are held against.
        engines: `generate`, transformers' own as it comes, and `graph`, captured CUDA graphs.
        batches: sequences of a batch.
        prompt_tokens: length of each prompt.
        new_tokens: tokens decoded for each, whatever they are.
        min_requests: batches timed for each cell, unless `max_sec` is over first.
        max_sec: after which a cell's batches are enough.
        rounds: turns that each variant takes for a cell, the others' between them.
        accuracy_rows: test rows answered over the catalog's trie by each variant on the graph
            engine; 0 for all.
        request_rows: of these, rows of about `prompt_tokens` whose requests are timed whole.
        context_tokens: longest prompt with its answer.
        seed: which rows are taken.
    """

    variants: tuple[str, ...] = ("fp16", "bf16", "nf4", "gptq:marlin", "gptq:triton")
    engines: tuple[str, ...] = ENGINES
    batches: tuple[int, ...] = (1, 4, 16, 64)
    prompt_tokens: int = 192
    new_tokens: int = 64
    min_requests: int = 30
    max_sec: float = 10.0
    rounds: int = 3
    accuracy_rows: int = 0
    request_rows: int = 200
    context_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        for variant in self.variants:
            source, _, kernel = variant.partition(":")
            if variant not in (*PLAIN, NF4) and not (source and kernel):
                raise InputError(
                    f"variants: {variant!r} is none of {', '.join((*PLAIN, NF4))} and no "
                    "INPUT:KERNEL, as gptq:marlin"
                )
        if not self.variants or len(set(self.variants)) < len(self.variants):
            raise InputError("variants: name one or more, none twice")
        if (
            not self.engines
            or len(set(self.engines)) < len(self.engines)
            or set(self.engines) - set(ENGINES)
        ):
            raise InputError(f"engines: name one or more of {', '.join(ENGINES)}, none twice")
        if not self.batches or min(self.batches) < 1:
            raise InputError("batches: give one or more sizes of at least 1")
        for name in ("prompt_tokens", "min_requests", "rounds", "request_rows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.new_tokens < 4:
            raise InputError(f"new_tokens must be at least 4, not {self.new_tokens}")
        if self.max_sec <= 0:
            raise InputError(f"max_sec must be above 0, not {self.max_sec}")
        if self.accuracy_rows < 0:
            raise InputError(f"accuracy_rows must be 0 or more, not {self.accuracy_rows}")
        if self.context_tokens < 64:
            raise InputError(f"context_tokens must be at least 64, not {self.context_tokens}")
