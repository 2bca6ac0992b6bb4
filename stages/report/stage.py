"""Writes report.html, report.md, report.json and MODEL_CARD.md from the stages' metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.report import card, details, markdown
from stages.report.collect import collect
from stages.report.gpu import tables
from stages.report.params import Params
from stages.report.recommend import accuracy_of


def run(params: Params, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Builds the report in `out`.

    Raises:
        InputError: An input is missing or not as its stage writes it.
    """
    report = collect(params, inputs)
    recommendation = report["recommendation"]
    print(recommendation["sentence"], flush=True)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown.render(report), encoding="utf-8")
    (out / "MODEL_CARD.md").write_text(card.render(report, params), encoding="utf-8")

    # Imported here: the host imports this module, and has no matplotlib.
    from stages.report import backend
    from stages.report.gpu import plots

    gpu = report["gpu"]
    content = {
        "report": report,
        "plots": backend.plots(report["plots"]) | (plots.plots(gpu) if gpu else {}),
        "accuracy_of": accuracy_of,
        "comparison": (
            markdown.comparison_sentence(report["comparison"]) if report["comparison"] else None
        ),
        "confidence": (
            markdown.confidence_sentence(report["plots"]["confidence"])
            if report["plots"]["confidence"]
            else None
        ),
        "gpu_title": tables.TITLE,
        "gpu_introduction": tables.introduction(gpu) if gpu else [],
        "gpu_blocks": tables.blocks(gpu) if gpu else [],
        "details": details.blocks(report),
        "slices": details.slices(report),
        "languages": markdown.languages_of(report["variants"]),
        "host": markdown.host_rows(report),
        "short": markdown.short,
    }
    (out / "report.html").write_text(backend.page(content), encoding="utf-8")
    chosen = next(one for one in report["variants"] if one["recommended"])
    return {
        "recommended": recommendation["variant"],
        "file": recommendation["file"],
        "sentence": recommendation["sentence"],
        "exact_match": accuracy_of(chosen)["exact"]["value"],
        "latency_p50_sec": chosen["latency_sec"]["p50"],
        "peak_rss_bytes": chosen["peak_rss_bytes"],
    }
