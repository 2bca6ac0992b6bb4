"""How near the variants are to the most precise one: same answers, like distributions."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages.bench_cpu import quality
from stages.bench_cpu.params import Params
from stages.bench_cpu.process import Worker
from stages.bench_cpu.quality import Record
from stages.bench_cpu.variants import LLAMA_CPP, Variant
from stages.core import figures
from stages.intent.metrics import rate
from stages.intent.rows import Row

_PRECISE = ("F32", "F16", "BF16")


def choose_reference(variants: Sequence[Variant]) -> Variant | None:
    """The GGUF model that is not quantized, or else the largest; None if nothing is beside it."""
    files = [variant for variant in variants if variant.engine == LLAMA_CPP]
    if len(variants) < 2 or not files:
        return None
    return next((one for one in files if one.encoding in _PRECISE), files[0])


def measure(
    params: Params,
    variants: Sequence[Variant],
    rows: Sequence[Row],
    texts: Mapping[str, Sequence[str]],
    folder: Path,
    cores: int,
    record: Record,
) -> tuple[str | None, dict[str, dict[str, Any] | None]]:
    """Holds every variant against the reference.

    Args:
        params: how many rows' distributions.
        variants: what to compare.
        rows: the chosen rows.
        texts: by variant its constrained answers to the first rows.
        folder: where the reference's distributions are kept meanwhile.
        cores: cores to use.
        record: takes each raw sample.

    Returns:
        The reference's name, and by variant: `agreement` (as `intent.metrics.rate`),
        `kl_divergence_nats` (the mean a token), `kl_p99_nats`, `tokens`, `rows`; None for the
        reference itself. The divergences are None where they were not asked for or the two
        tokenize otherwise.
    """
    reference = choose_reference(variants)
    if reference is None:
        return None, {variant.name: None for variant in variants}
    others = [variant for variant in variants if variant is not reference]
    lines = [row.to_json() for row in rows[: params.kl_rows]]
    processes, threads = quality.plan(variants, cores)
    samples: dict[str, list[dict[str, Any]]] = {one.name: [] for one in others}
    if lines:
        with tempfile.TemporaryDirectory(dir=folder) as kept:
            with Worker(reference, threads, params.context_tokens) as worker:
                worker.distributions(lines, Path(kept), write=True)

            def one(variant: Variant) -> list[dict[str, Any]]:
                with Worker(variant, threads, params.context_tokens) as worker:
                    return worker.distributions(lines, Path(kept), write=False)

            with ThreadPoolExecutor(processes) as pool:
                compared = pool.map(one, others)
                samples = dict(zip((v.name for v in others), compared, strict=True))
    found: dict[str, dict[str, Any] | None] = {reference.name: None}
    for variant in others:
        for row, sample in enumerate(samples[variant.name]):
            record({"phase": "divergence", "variant": variant.name, "row": row, **sample})
        found[variant.name] = _summary(
            texts[reference.name], texts[variant.name], samples[variant.name]
        )
        print(_line(variant.name, reference.name, found[variant.name]), flush=True)
    return reference.name, found


def _summary(
    reference: Sequence[str], texts: Sequence[str], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    known = all(sample["kl_nats"] is not None for sample in samples)
    values = [one for sample in samples for one in sample["kl_nats"]] if known else []
    return {
        "agreement": rate(one == two for one, two in zip(texts, reference, strict=False)),
        "kl_divergence_nats": statistics.fmean(values) if values else None,
        "kl_p99_nats": figures.percentile(values, 0.99) if values else None,
        "tokens": len(values),
        "rows": len(samples) if values else 0,
    }


def _line(name: str, reference: str, found: Mapping[str, Any] | None) -> str:
    assert found is not None
    divergence = found["kl_divergence_nats"]
    told = "" if divergence is None else f", KL divergence {divergence:.2g} nats a token"
    return f"{name} gives {found['agreement']['value']:.1%} of {reference}'s answers{told}"
