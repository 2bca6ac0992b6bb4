"""llama.cpp's own benchmark on the same files, to stand beside what requests take."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from stages.bench_cpu.machine import pinned
from stages.bench_cpu.params import Params
from stages.bench_cpu.variants import LLAMA_CPP, Variant
from stages.core.errors import StageFailed

PROGRAM = "llama-bench"
DECODE_TOKENS = 24


def measure(
    params: Params, variants: Sequence[Variant], prompt_tokens: int, threads: int
) -> dict[str, dict[str, Any] | None]:
    """Runs llama-bench on every GGUF model.

    Args:
        params: repetitions.
        variants: what is measured.
        prompt_tokens: length of a prompt, that of the rows' median.
        threads: threads.

    Returns:
        By variant `prompt_tokens`, `decode_tokens`, `prompt_tokens_per_sec`,
        `decode_tokens_per_sec` and `decode_at_depth_tokens_per_sec`, medians of the repetitions;
        None for transformers, and for all where the program is not here or not asked for.

    Raises:
        StageFailed: the program ends with an error.
    """
    program = shutil.which(PROGRAM) if params.llama_bench_runs else None
    found: dict[str, dict[str, Any] | None] = {}
    for variant in variants:
        if program is None or variant.engine != LLAMA_CPP:
            found[variant.name] = None
            continue
        found[variant.name] = one = _run(program, params, variant, prompt_tokens, threads)
        print(
            f"llama-bench {variant.name}: {one['prompt_tokens_per_sec']:,.0f} prompt tokens/s, "
            f"{one['decode_at_depth_tokens_per_sec']:,.0f} decoded",
            flush=True,
        )
    return found


def _run(
    program: str, params: Params, variant: Variant, prompt_tokens: int, threads: int
) -> dict[str, Any]:
    command = [program, "--model", str(variant.path), "--output", "json", "--threads", str(threads)]
    command += ["--n-prompt", str(prompt_tokens), "--n-gen", str(DECODE_TOKENS)]
    command += ["--n-depth", f"0,{prompt_tokens}", "--repetitions", str(params.llama_bench_runs)]
    with pinned(threads):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise StageFailed(
            f"llama-bench on {variant.path.name} ended with {done.returncode}: "
            f"{lines[-1] if lines else 'no output'}"
        )
    return _figures(json.loads(done.stdout), prompt_tokens)


def _figures(tests: Sequence[Mapping[str, Any]], prompt_tokens: int) -> dict[str, Any]:
    """The three figures out of llama-bench's tests, of which each has a depth."""
    rates = {
        (test["n_prompt"] > 0, test["n_depth"] > 0): statistics.median(test["samples_ts"])
        for test in tests
    }
    return {
        "prompt_tokens": prompt_tokens,
        "decode_tokens": DECODE_TOKENS,
        "prompt_tokens_per_sec": rates[True, False],
        "decode_tokens_per_sec": rates[False, False],
        "decode_at_depth_tokens_per_sec": rates[False, True],
    }
