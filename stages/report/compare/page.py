"""comparison.md and comparison.html."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stages.report import figures, markdown
from stages.report.compare.schema import Comparison, Difference, Pair

TITLE = "Two reports side by side"
_MARKS = {True: "differs", False: "within the noise"}


def head(found: Comparison) -> list[str]:
    """Of the table of variants."""
    one, two = (side["label"] for side in found["sides"])
    return ["Variant", "What", one, two, "Change", "Interval", "Verdict"]


def rows(found: Comparison) -> list[list[str]]:
    """Of the table of variants: four a variant."""
    return [row for pair in found["pairs"] for row in _pair_rows(pair)]


def _pair_rows(pair: Pair) -> list[list[str]]:
    exact, latency = pair["exact"], pair["latency"]
    return [
        [
            pair["name"], "Exact match",
            *(f"{figures.percent(one['value'])} ({figures.interval(one)})"
              for one in pair["exact_rates"]),
            _signed(exact["change"], figures.points),
            _range(exact, lambda share: f"{100 * share:+.1f}".replace("-", "−"), " points"),
            _MARKS[exact["differs"]],
        ],
        [
            "", "Median latency",
            *(f"{figures.seconds(one['p50'])} ({_short(one['low'])}–{_short(one['high'])})"
              for one in pair["latency_sec"]),
            figures.change(latency["change"]),
            _range(latency, lambda share: f"{100 * share:+.0f}".replace("-", "−"), " %"),
            _MARKS[latency["differs"]],
        ],
        _plain("Peak memory", pair["memory"]),
        _plain("File", pair["size"], _file_mark(pair)),
    ]  # fmt: skip


def _file_mark(pair: Pair) -> str:
    if pair["same_file"] is not None:
        return "the same file" if pair["same_file"] else "another file"
    return "differs" if pair["size"]["differs"] else "the same size"


def _plain(title: str, one: Difference, mark: str = "") -> list[str]:
    sizes = [figures.size(one["first"]), figures.size(one["second"])]
    return ["", title, *sizes, figures.change(one["change"]), "–", mark or _MARKS[one["differs"]]]


def _short(value_sec: float) -> str:
    """Milliseconds without their unit, as the ends of an interval have them."""
    return figures.significant(value_sec * 1e3) + ("" if value_sec < 0.9995 else " ms")


def _signed(value: float, spell: Callable[[float], str]) -> str:
    return ("−" if value < 0 else "+") + spell(value)


def _range(one: Difference, spell: Callable[[float], str], unit: str) -> str:
    assert one["low"] is not None and one["high"] is not None
    return f"{spell(one['low'])} to {spell(one['high'])}{unit}"


def hosts(found: Comparison) -> list[list[str]]:
    """Both machines and settings: name, first, second; each name that either has."""
    sides = [dict(side["host"]) for side in found["sides"]]
    names = list(dict.fromkeys(name for side in sides for name in side))
    return [[name, *(side.get(name, "–") for side in sides)] for name in names]


def only(found: Comparison) -> list[str]:
    """What one side has alone, as sentences."""
    return [
        f"Only {side['label']} has {', '.join(names)}."
        for side, names in zip(found["sides"], found["only"], strict=True)
        if names
    ]


def render(found: Comparison) -> str:
    """comparison.md."""
    labels = [side["label"] for side in found["sides"]]
    parts = [
        f"# {TITLE}",
        *found["sentences"],
        *only(found),
        "## Variants",
        markdown.table(head(found), rows(found)),
        "## Recommendations",
        *(f"{side['label']}: {side['sentence']}" for side in found["sides"]),
        "## Hosts and settings",
        markdown.table(("What", *labels), hosts(found)),
    ]
    return "\n\n".join(parts) + "\n"


def content(found: Comparison, plots: Any) -> dict[str, Any]:
    """What the page's template reads."""
    return {
        "title": TITLE,
        "found": found,
        "plots": plots,
        "head": head(found),
        "rows": rows(found),
        "only": only(found),
        "hosts": hosts(found),
    }
