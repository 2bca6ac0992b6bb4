"""What was aimed at and what was measured, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """One aim.

    Attributes:
        what: is measured.
        aim: in words.
        measured: in words.
        met: whether the aim is met.
    """

    what: str
    aim: str
    measured: str
    met: bool


def at_least(what: str, value: float | None, least: float, unit: str, note: str = "") -> Bar:
    """An aim that a value reaches or misses; no value is a miss."""
    return _bar(what, f"≥ {least:g}{unit}", value, unit, note, value is not None and value >= least)


def at_most(what: str, value: float | None, most: float, unit: str, note: str = "") -> Bar:
    """An aim that a value keeps to or exceeds; no value is a miss."""
    return _bar(what, f"≤ {most:g}{unit}", value, unit, note, value is not None and value <= most)


def _bar(what: str, aim: str, value: float | None, unit: str, note: str, met: bool) -> Bar:
    shown = "nothing" if value is None else f"{value:.3g}{unit}"
    return Bar(what, aim, f"{shown} ({note})" if note else shown, met)


def table(bars: Sequence[Bar]) -> str:
    """The aims as a Markdown table."""
    rows = [(one.what, one.aim, one.measured + ("" if one.met else ": missed")) for one in bars]
    return markdown(("what", "aim", "measured"), rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
