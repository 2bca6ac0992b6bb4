"""The recommendation: the fastest GGUF file that is as accurate as the best one.

The rule, in full: of the GGUF variants whose exact match is at most `max_drop` below that of the
most accurate one, take the one with the lowest median latency. Variants that are slower than it by
no more than the noise (two measurements of the same file, the A/A pair) are tied with it; of those,
take the one with the lowest peak memory, and of those within 2 % of that the smallest file.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.core.errors import InputError
from stages.report import figures
from stages.report.measured import Rate
from stages.report.schema import Accuracy, Comparison, Recommendation, Variant, Verdict

# Source: arXiv 2510.21970, GGUF on a Ryzen 7 5800HS against its FP16 baseline.
PAPER_THROUGHPUT_RATIO = 18.0
PAPER_MEMORY_CHANGE = -0.90

_ROUNDING = 1e-9
# Peaks of one file differ by about a percent from run to run.
MEMORY_NOISE = 0.02


def accuracy_of(variant: Variant) -> Accuracy:
    """The accuracy as served, or that of free decoding where only that was measured.

    Raises:
        InputError: Neither was measured.
    """
    accuracy = variant["accuracy"] or variant["free"]
    if accuracy is None:
        raise InputError(f"metrics.json: the variant {variant['name']} has no accuracy")
    return accuracy


def exact_of(variant: Variant) -> Rate:
    """The share of test rows answered exactly right."""
    return accuracy_of(variant)["exact"]


def recommend(
    variants: Sequence[Variant], max_drop: float, noise: float, machine: str
) -> Recommendation:
    """Chooses a variant.

    Args:
        variants: All measured ones; only GGUF files are candidates.
        max_drop: Exact match that may be lost against the best, as a share.
        noise: Relative difference of median latency between two measurements of one file.
        machine: The CPU's name.

    Raises:
        InputError: No GGUF variant was measured.
    """
    candidates = [one for one in variants if one["engine"] == "llama.cpp"]
    if not candidates:
        raise InputError("metrics.json: no GGUF variant was measured, so none can be recommended")
    best = max(candidates, key=lambda one: (exact_of(one)["value"], -_p50(one)))
    floor = exact_of(best)["value"] - max_drop - _ROUNDING
    accepted = [one for one in candidates if exact_of(one)["value"] >= floor]
    fastest = min(accepted, key=_p50)
    tied = [one for one in accepted if _p50(one) <= _p50(fastest) * (1 + noise) + _ROUNDING]
    least_bytes = min(one["peak_rss_bytes"] for one in tied)
    light = [one for one in tied if one["peak_rss_bytes"] <= least_bytes * (1 + MEMORY_NOISE)]
    chosen = min(light, key=lambda one: (one["size_bytes"], _p50(one), one["name"]))
    others = [one for one in accepted if one is not chosen]
    runner_up = min(others, key=_p50) if others else None
    return {
        "variant": chosen["name"],
        "file": chosen["file"],
        "sentence": f"On this CPU ({machine}) use {chosen['name']}: {_figures(chosen)}.",
        "reason": _reason(chosen, best, runner_up, tied, noise),
        "rule": (
            "Of the GGUF variants with an exact match within "
            f"{figures.points(max_drop)} of the best, the one with the lowest median latency; "
            f"within the noise of {figures.percent(noise)}, the one that needs the least memory; "
            f"within {figures.percent(MEMORY_NOISE, 0)} of that, the smallest file."
        ),
        "max_accuracy_drop": max_drop,
        "noise": noise,
        "runner_up": runner_up["name"] if runner_up else None,
        "verdicts": [_verdict(one, best, chosen, max_drop, floor) for one in candidates],
    }


def compare(variants: Sequence[Variant], chosen: str) -> Comparison | None:
    """The chosen variant against Hugging Face transformers, as the paper compared.

    Returns:
        None where no baseline was measured. FP16, the paper's, is taken if there are several.
    """
    baselines = [one for one in variants if one["engine"] == "transformers"]
    if not baselines:
        return None
    baseline = next((one for one in baselines if one["encoding"] == "FP16"), baselines[0])
    variant = next(one for one in variants if one["name"] == chosen)
    plain_sec = (baseline["latency_free_sec"] or baseline["latency_sec"])["p50"]
    known = variant["latency_known_sec"]
    decode, slow_decode = variant["decode_tokens_per_sec"], baseline["decode_tokens_per_sec"]
    return {
        "baseline": baseline["name"],
        "variant": chosen,
        "requests_ratio": plain_sec / _p50(variant),
        "known_ratio": plain_sec / known["p50"] if known else None,
        "decode_ratio": decode / slow_decode if decode and slow_decode else None,
        "memory_change": variant["peak_rss_bytes"] / baseline["peak_rss_bytes"] - 1,
        "paper_throughput_ratio": PAPER_THROUGHPUT_RATIO,
        "paper_memory_change": PAPER_MEMORY_CHANGE,
    }


def _p50(variant: Variant) -> float:
    return variant["latency_sec"]["p50"]


def _figures(variant: Variant) -> str:
    exact = exact_of(variant)
    return (
        f"{figures.percent(exact['value'])} exact match ({figures.interval(exact)}), "
        f"{figures.seconds(_p50(variant))} median latency, "
        f"{figures.size(variant['peak_rss_bytes'])} of memory, "
        f"a file of {figures.size(variant['size_bytes'])}"
    )


def _reason(
    chosen: Variant,
    best: Variant,
    runner_up: Variant | None,
    tied: Sequence[Variant],
    noise: float,
) -> str:
    sentences = []
    gain = exact_of(best)["value"] - exact_of(chosen)["value"]
    if gain == 0:
        sentences.append("No GGUF variant is more accurate.")
    else:
        sentences.append(
            f"{best['name']} is the most accurate with "
            f"{figures.percent(exact_of(best)['value'])}: {figures.points(gain)} more, "
            f"{_overlap(chosen, best)}, for {_time(_p50(best) / _p50(chosen))}."
        )
    rest = [one for one in tied if one is not chosen]
    if rest:
        verb = "is" if len(rest) == 1 else "are"
        limit_bytes = chosen["peak_rss_bytes"] * (1 + MEMORY_NOISE)
        lightest = all(one["peak_rss_bytes"] > limit_bytes for one in rest)
        sentences.append(
            f"{listed([one['name'] for one in rest])} {verb} as fast within the noise of "
            f"{figures.percent(noise)}; {chosen['name']} "
            + ("needs the least memory." if lightest else "is the smallest of the lightest.")
        )
    if runner_up is not None and runner_up is not best and runner_up not in tied:
        sentences.append(
            f"The runner-up is {runner_up['name']}: "
            f"{figures.seconds(_p50(runner_up))} at "
            f"{figures.percent(exact_of(runner_up)['value'])}, "
            f"{figures.size(runner_up['peak_rss_bytes'])} of memory."
        )
    return " ".join(sentences)


def _time(ratio: float) -> str:
    return "about the same time" if 0.95 < ratio < 1.05 else f"{figures.times(ratio)} the time"


def _verdict(
    variant: Variant, best: Variant, chosen: Variant, max_drop: float, floor: float
) -> Verdict:
    drop = exact_of(best)["value"] - exact_of(variant)["value"]
    if variant is chosen:
        why = "recommended"
    elif exact_of(variant)["value"] >= floor:
        why = (
            f"accurate enough; {_time(_p50(variant) / _p50(chosen))}, "
            f"{figures.size(variant['peak_rss_bytes'])} of memory, "
            f"a file of {figures.size(variant['size_bytes'])}"
        )
    else:
        why = (
            f"{figures.points(drop)} below {best['name']}, more than {figures.points(max_drop)}; "
            f"{_overlap(variant, best)}"
        )
    return {
        "name": variant["name"],
        "accepted": exact_of(variant)["value"] >= floor,
        "why": why,
    }


def _overlap(one: Variant, better: Variant) -> str:
    apart = exact_of(one)["high"] < exact_of(better)["low"]
    return "beyond the intervals" if apart else "within the intervals"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: `A, B and C`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
