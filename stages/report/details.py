"""Tables of what lies behind the answer: nearness, memory, threads, llama-bench.

Written once, for the page and report.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.report import figures
from stages.report.gpu.tables import Block
from stages.report.schema import Memory, Report, Slice, Variant

# Below it two rates of tokens are called alike.
_ALIKE = 0.1


def near(report: Report) -> list[Block]:
    """How near each variant is to the reference."""
    reference = report["reference"]
    rows = [
        (
            one["name"],
            figures.percent(found["agreement"]["value"]),
            figures.interval(found["agreement"]),
            _nats(found["kl_divergence_nats"]),
            _nats(found["kl_p99_nats"]),
            f"{found['agreement']['n']:,}",
            f"{found['tokens']:,}",
        )
        for one in report["variants"]
        if (found := one["fidelity"])
    ]
    if not rows or reference is None:
        return []
    return [
        Block(
            f"How near to {reference}",
            ("Variant", "Same answer", "95 %", "KL mean", "KL p99", "Rows", "Tokens"),
            rows,
            f"Same answer: share of the test rows to which it gives {reference}'s very answer. KL: "
            f"Kullback-Leibler divergence of its next-token distribution from {reference}'s, in "
            "nats, over the tokens of the right answers; 0 is no difference.",
        )
    ]


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value < 1e-6 else f"{value:.5f}" if value < 0.01 else f"{value:.3f}"


def memory(report: Report) -> Block:
    """What each variant takes, mapped and read."""
    rows = []
    for one in report["variants"]:
        for mode, found in (("mapped", one["memory"]["mapped"]), ("read", one["memory"]["read"])):
            if found:
                rows.append((one["name"], mode, *_memory_cells(found)))
    return Block(
        "Memory, defined",
        ("Variant", "File", "Peak RSS", "PSS", "Of files", "Anonymous"),
        rows,
        "Each in a process of its own that answered requests while no other variant ran. Peak RSS: "
        "the most that was resident, all that is mapped included; it is the figure above. PSS: the "
        "same at the end, with what several processes map divided among them. Of files: pages that "
        "the system can drop and read again, the mapped model among them; anonymous: what it "
        "cannot, such as weights laid out anew for this CPU. A model that is mapped and laid out "
        "anew is there twice until the system drops the mapped pages, so a saving in percent "
        "depends on which of these is meant.",
    )


def _memory_cells(found: Memory) -> tuple[str, ...]:
    pss_bytes = found["pss_bytes"]
    return (
        figures.size(found["peak_rss_bytes"]),
        "–" if pss_bytes is None else figures.size(pss_bytes),
        figures.size(found["rss_file_bytes"]),
        figures.size(found["rss_anonymous_bytes"]),
    )


def threads(report: Report) -> list[Block]:
    """What more threads gain."""
    found = report["plots"]["threads"]
    if not found or len(found["points"]) < 2:
        return []
    first = found["points"][0]["latency_sec"]["p50"]
    return [
        Block(
            f"{found['variant']} by threads",
            ("Threads", "p50", "p99", "Of one", "Prompt tok/s", "Decode tok/s"),
            [
                (
                    str(one["threads"]),
                    figures.seconds(one["latency_sec"]["p50"]),
                    figures.seconds(one["latency_sec"]["p99"]),
                    figures.factor(first / one["latency_sec"]["p50"]),
                    figures.per_second(one["prompt_tokens_per_sec"]),
                    figures.per_second(one["decode_tokens_per_sec"]),
                )
                for one in found["points"]
            ],
            "Each pinned to as many cores, one of every physical core first; measured in turns.",
        )
    ]


def energy(report: Report) -> list[Block]:
    """What a request takes of the processor's own counters, where they can be read."""
    rows = [
        (one["name"], figures.joules(joules))
        for one in report["variants"]
        if (joules := one["energy_joules_per_request"]) is not None
    ]
    if not rows:
        return []
    return [
        Block(
            "Energy",
            ("Variant", "A request"),
            rows,
            "By the processor's own counters (RAPL), all of it, whatever else ran; a request as "
            "served, with a catalog not seen before.",
        )
    ]


def llama_bench(report: Report) -> list[Block]:
    """llama-bench's figures beside those of requests, and why they differ."""
    measured = [one for one in report["variants"] if one["llama_bench"]]
    if not measured:
        return []
    own = measured[0]["llama_bench"]
    assert own is not None
    return [
        Block(
            "Beside llama-bench",
            (
                "Variant",
                "Prompt, requests",
                "llama-bench",
                "Decode, requests",
                "at depth",
                "empty",
                "Of memory's rate",
            ),
            [_bench_cells(one, report["host"]) for one in measured],
            f"Tokens per second. llama-bench passes {own['prompt_tokens']} random tokens (the "
            f"median prompt's length) and decodes {own['decode_tokens']}, after as many tokens (at "
            f"depth) and after none (empty). Of memory's rate: the file's bytes for each token of "
            "the last, as a share of what as many threads read from memory here; none where a "
            "cache holds the file. "
            f"{_why(measured)}",
        )
    ]


def _bench_cells(variant: Variant, host: Mapping[str, Any]) -> tuple[str, ...]:
    own = variant["llama_bench"]
    assert own is not None
    rate = host.get("memory_read_bytes_per_sec")
    cache_bytes = max(host.get("cache_bytes", {}).values(), default=0)
    is_read = rate and variant["size_bytes"] > cache_bytes
    return (
        variant["name"],
        figures.per_second(variant["prompt_tokens_per_sec"]),
        figures.per_second(own["prompt_tokens_per_sec"]),
        figures.per_second(variant["decode_tokens_per_sec"]),
        figures.per_second(own["decode_at_depth_tokens_per_sec"]),
        figures.per_second(own["decode_tokens_per_sec"]),
        figures.percent(own["decode_tokens_per_sec"] * variant["size_bytes"] / rate, 0)
        if is_read
        else "–",
    )


def _why(measured: list[Variant]) -> str:
    """Where the two differ by more than a tenth, what is between them."""
    sentences = [
        "A request has besides: prompts of many lengths, and for each pass Python's call and the "
        "search for the likeliest token."
    ]
    chosen = next((one for one in measured if one["recommended"]), measured[0])
    own, ours = chosen["llama_bench"], chosen["decode_tokens_per_sec"]
    assert own is not None
    theirs = own["decode_at_depth_tokens_per_sec"]
    if ours:
        per_pass_sec = 1 / ours - 1 / theirs
        if abs(theirs / ours - 1) <= _ALIKE:
            sentences.append(
                f"For {chosen['name']} they are alike: {figures.seconds(1 / ours)} and "
                f"{figures.seconds(1 / theirs)} a token."
            )
        else:
            more = "longer" if per_pass_sec > 0 else "less"
            sentences.append(
                f"For {chosen['name']} a token takes {figures.seconds(abs(per_pass_sec))} {more} "
                f"in a request: {figures.seconds(1 / ours)} against {figures.seconds(1 / theirs)}. "
                + (
                    ""
                    if per_pass_sec > 0
                    else "The two ran at different times, so other work on this machine is in it."
                )
            )
    empty = own["decode_tokens_per_sec"]
    if empty > theirs * (1 + _ALIKE):
        sentences.append(
            f"From an empty cache it decodes {figures.times(empty / theirs)} as many tokens: the "
            "rest of the time goes to attention over the prompt."
        )
    return " ".join(one.strip() for one in sentences)


def slices(report: Report) -> list[Block]:
    """Exact match of the recommended variant by slice."""
    found = report["plots"]["slices"]
    if not found:
        return []
    name = report["recommendation"]["variant"]
    return [
        Block(
            f"{name} by slice",
            ("Slice", "Value", "Exact match", "95 %", "Rows"),
            [_slice_cells(one) for one in found],
            "Slices are properties that the rows themselves state; a message can be in several.",
        )
    ]


def _slice_cells(one: Slice) -> tuple[str, ...]:
    return (
        one["key"].replace("_", " "),
        one["value"].replace("_", " "),
        figures.percent(one["exact"]["value"]),
        figures.interval(one["exact"]),
        f"{one['exact']['n']:,}",
    )


def blocks(report: Report) -> list[Block]:
    """All that is about speed, memory and nearness, in the order in which it is read."""
    return [*near(report), memory(report), *threads(report), *llama_bench(report), *energy(report)]
