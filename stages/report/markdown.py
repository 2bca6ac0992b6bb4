"""report.md: the same content as the page, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stages.report import details, figures
from stages.report.gpu import tables
from stages.report.recommend import accuracy_of
from stages.report.schema import Comparison, Confidence, Gpu, LineageStep, Report, Variant


def render(report: Report) -> str:
    """The report as Markdown."""
    recommendation = report["recommendation"]
    parts = [
        f"# {report['title']}",
        f"**{recommendation['sentence']}**",
        recommendation["reason"],
        f"Rule: {recommendation['rule']}",
        "## Variants",
        variants_table(report["variants"]),
        "Accuracy is exact match on the test rows, answers constrained to the catalog, with the "
        "95 % Wilson interval. Latency is a whole request, tokenizing included. Memory is the peak "
        "resident size of the variant's own process.",
        "### Fields",
        fields_table(report["variants"]),
        "### Languages",
        languages_table(report["variants"]),
        "### Why, or why not",
        table(
            ("Variant", "Accepted", "Why"),
            (
                (one["name"], "yes" if one["accepted"] else "no", one["why"])
                for one in recommendation["verdicts"]
            ),
        ),
    ]
    free = free_table(report["variants"])
    if free:
        parts += [
            "### Without the catalog's constraint",
            "Plain greedy decoding of the same rows.",
            free,
        ]
    for block in [*details.slices(report), *details.blocks(report)]:
        parts += [f"### {block.title}", table(block.head, block.rows), block.note]
    confidence = report["plots"]["confidence"]
    if confidence:
        parts += [
            "## How sure the model is",
            confidence_sentence(confidence),
            coverage_table(confidence),
            calibration_table(confidence),
        ]
    if report["comparison"] is not None:
        parts += ["## Beside the paper", comparison_sentence(report["comparison"])]
    if report["gpu"] is not None:
        parts.append(gpu_section(report["gpu"]))
    if report["parity"] is not None:
        parts += ["## Parity", parity_table(report["parity"])]
    if report["plots"]["learning_curve"]:
        parts += ["## Learning curve", curve_table(report["plots"]["learning_curve"])]
    parts += [
        "## Lineage",
        lineage_table(report["lineage"]),
        "### Files",
        table(
            ("File", "Size", "SHA-256"),
            (
                (f"`{one['file']}`", figures.size(one["size_bytes"]), f"`{one['sha256']}`")
                for one in report["variants"]
                if one["sha256"]
            ),
        ),
        "## Host",
        table(("What", "Value"), host_rows(report)),
        "## Run it again",
        "```\n" + "\n".join(report["rerun"]) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def gpu_section(gpu: Gpu) -> str:
    """What bench-gpu measured."""
    parts = [f"## {tables.TITLE}", *tables.introduction(gpu)]
    for block in tables.blocks(gpu):
        parts += [f"### {block.title}", table(block.head, block.rows)]
        parts += [block.note] if block.note else []
    return "\n\n".join(parts)


def confidence_sentence(confidence: Confidence) -> str:
    """What the probability is good for, and how far it is to be trusted."""
    error = confidence["calibration"]["expected_error"]
    return (
        "Every answer of the recommended variant carries a probability. A service can answer only "
        "above a threshold and pass the rest on to a person. Probability and share of right "
        f"answers are {100 * error:.1f} points apart on average, on these test rows."
    )


def coverage_table(confidence: Confidence) -> str:
    """Accuracy at each share of the traffic answered."""
    return table(
        ("Answered", "Threshold", "Exact match", "95 %", "Rows"),
        (
            (
                f"{100 * one['share']:.0f} %",
                f"{one['threshold']:.4f}",
                figures.percent(one["exact"]["value"]),
                figures.interval(one["exact"]),
                f"{one['exact']['n']:,}",
            )
            for one in confidence["coverage"]
        ),
    )


def calibration_table(confidence: Confidence) -> str:
    """Share of right answers by probability."""
    return table(
        ("Probability", "Mean", "Right", "95 %", "Rows"),
        (
            (
                f"{one['low']:.1f} to {one['high']:.1f}",
                f"{one['mean_probability']:.3f}",
                figures.percent(one["exact"]["value"]),
                figures.interval(one["exact"]),
                f"{one['exact']['n']:,}",
            )
            for one in confidence["calibration"]["bins"]
        ),
    )


def comparison_sentence(comparison: Comparison) -> str:
    """The variant against the Hugging Face baseline, and what the paper reports."""
    decode = comparison["decode_ratio"]
    decoded = (
        f", {figures.times(decode)} the decoded tokens per second" if decode is not None else ""
    )
    ratio = comparison["known_ratio"]
    known = f", {figures.times(ratio)} where the catalog is known" if ratio is not None else ""
    return (
        f"{comparison['variant']} answers {figures.times(comparison['requests_ratio'])} the "
        f"requests per second of {comparison['baseline']}, decoded as it comes, on this host"
        f"{known}{decoded}, with "
        f"{figures.change(comparison['memory_change'])} memory. The paper (arXiv 2510.21970) "
        f"reports up to {comparison['paper_throughput_ratio']:.0f} times the throughput and "
        f"{figures.change(comparison['paper_memory_change'])} memory, for a model of 1.24 billion "
        "parameters on a Ryzen 7 5800HS against FP16: another model, another CPU and another "
        "baseline."
    )


def variants_table(variants: Sequence[Variant]) -> str:
    """One row a variant."""
    return table(
        (
            "Variant",
            "Exact match",
            "95 %",
            "p50",
            "p90",
            "p99",
            "known p50",
            "prompt tok/s",
            "decode tok/s",
            "Memory",
            "File",
            "Bits/weight",
            "Load",
            "Invalid",
            "Invented",
        ),
        (_variant_cells(one) for one in variants),
    )


def _variant_cells(variant: Variant) -> list[str]:
    accuracy, latency = accuracy_of(variant), variant["latency_sec"]
    known = variant["latency_known_sec"]
    name = f"**{variant['name']}**" if variant["recommended"] else variant["name"]
    return [
        name,
        figures.percent(accuracy["exact"]["value"]),
        figures.interval(accuracy["exact"]),
        *(figures.seconds(latency[key]) for key in ("p50", "p90", "p99")),
        figures.seconds(known["p50"]) if known else "–",
        figures.per_second(variant["prompt_tokens_per_sec"]),
        figures.per_second(variant["decode_tokens_per_sec"]),
        figures.size(variant["peak_rss_bytes"]),
        figures.size(variant["size_bytes"]),
        f"{variant['bits_per_weight']:.2f}" if variant["engine"] == "llama.cpp" else "–",
        figures.seconds(variant["load_sec"]),
        str(accuracy["invalid_json"]),
        str(accuracy["invented_products"]),
    ]


def fields_table(variants: Sequence[Variant]) -> str:
    """Action, product and quantity apart."""
    return table(
        ("Variant", "Action", "Product", "Quantity", "Rows"),
        (
            (
                one["name"],
                *(
                    figures.percent(accuracy_of(one)[key]["value"])
                    for key in ("action", "product", "quantity")
                ),
                f"{accuracy_of(one)['exact']['n']:,}",
            )
            for one in variants
        ),
    )


def languages_of(variants: Sequence[Variant]) -> list[str]:
    """Every language that a row had."""
    return sorted({name for one in variants for name in accuracy_of(one)["by_language"]})


def languages_table(variants: Sequence[Variant]) -> str:
    """Exact match by language, with the interval."""
    names = languages_of(variants)
    return table(
        ("Variant", *(name.capitalize() for name in names)),
        ((one["name"], *(_language_cell(one, name) for name in names)) for one in variants),
    )


def _language_cell(variant: Variant, language: str) -> str:
    rate = accuracy_of(variant)["by_language"].get(language)
    return "–" if rate is None else f"{figures.percent(rate['value'])} ({figures.interval(rate)})"


def free_table(variants: Sequence[Variant]) -> str:
    """What the constraint saves: the same rows without it; empty if not measured."""
    rows = [
        (
            one["name"],
            figures.percent(one["free"]["exact"]["value"]),
            figures.interval(one["free"]["exact"]),
            str(one["free"]["invalid_json"]),
            str(one["free"]["invented_products"]),
            f"{one['free']['exact']['n']:,}",
        )
        for one in variants
        if one["free"] is not None
    ]
    head = ("Variant", "Exact match", "95 %", "Invalid JSON", "Invented products", "Rows")
    return table(head, rows) if rows else ""


def parity_table(parity: Any) -> str:
    """Agreement with the merged model."""
    return (
        table(
            ("Model", "Exact match", "Same answer as the merged model"),
            (
                (
                    one["name"],
                    figures.percent(one["exact"]),
                    figures.percent(one["agreement"]["exact"]["value"]),
                )
                for one in parity["models"]
            ),
        )
        + f"\n\nOn {parity['rows']} validation rows."
    )


def curve_table(curve: Sequence[dict[str, Any]]) -> str:
    """The evaluated steps of training."""
    return table(
        ("Step", "Loss", "Evaluation loss", "Evaluation exact match", "Elapsed"),
        (
            (
                str(one["step"]),
                _optional(one.get("loss"), "{:.4f}"),
                _optional(one.get("eval_loss"), "{:.4f}"),
                _optional(one.get("eval_exact_match"), "{:.1%}"),
                _optional(one.get("elapsed_sec"), "{:.0f} s"),
            )
            for one in curve
            if one.get("eval_loss") is not None or one.get("eval_exact_match") is not None
        ),
    )


def _optional(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def lineage_table(lineage: Sequence[LineageStep]) -> str:
    """From the data to the measurements."""
    return table(
        ("Stage", "Key", "Content", "Seed", "Started", "Took", "Peak memory"),
        (
            (
                one["stage"],
                f"`{short(one['key'])}`",
                f"`{short(one['content_sha256'])}`",
                "–" if one["seed"] is None else str(one["seed"]),
                one["started_at"],
                figures.seconds(one["wall_sec"]),
                figures.size(one["peak_rss_bytes"]),
            )
            for one in lineage
        ),
    )


def short(digest: str | None) -> str:
    """A hash, shortened to what a person compares."""
    return digest[:12] if digest else "–"


def host_rows(report: Report) -> list[tuple[str, str]]:
    """The machine, the noise and the settings as names and values."""
    host, noise = report["host"], report["noise"]
    rows = [("CPU", str(host.get("cpu_model", "–")))]
    if host.get("usable_cores") is not None:
        rows.append(("Usable cores", str(host["usable_cores"])))
    if host.get("memory_limit_bytes"):
        rows.append(("Memory", figures.size(host["memory_limit_bytes"])))
    if host.get("cache_bytes"):
        caches = (f"{name} {figures.size(one)}" for name, one in host["cache_bytes"].items())
        rows.append(("Caches", ", ".join(caches)))
    if host.get("memory_read_bytes_per_sec"):
        rows.append(("Memory is read at", f"{figures.size(host['memory_read_bytes_per_sec'])}/s"))
    if host.get("frequency_mhz"):
        most = host.get("frequency_max_mhz")
        rows.append(
            (
                "Frequency",
                f"{host['frequency_mhz']:,.0f} MHz" + (f" of {most:,.0f}" if most else ""),
            )
        )
    rows += [
        (title, str(host[key]))
        for key, title in (
            ("threads_per_core", "Threads a core"),
            ("frequency_governor", "Frequency governor"),
            ("load_average", "Load average before"),
            ("kernel_backend", "llama.cpp backend"),
            ("kernel_features", "llama.cpp features"),
            ("system", "System"),
            ("kernel", "Kernel"),
            ("python", "Python"),
        )
        if host.get(key)
    ]
    if noise:
        rows.append(
            ("Noise (A/A)", f"{noise['variant']} twice: {figures.percent(noise['relative'])}")
        )
    for key, value in report["settings"].items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        name = key.replace("hf_", "Hugging Face ").replace("kl_", "KL ").replace("_", " ")
        rows.append((name[0].upper() + name[1:], text))
    return rows


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
