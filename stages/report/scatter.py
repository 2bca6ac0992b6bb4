"""Exact match over a cost: a point for each variant, and the front of those that none beats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from stages.report import figures, labels
from stages.report.canvas import ACCENT, INK, MUTED, PAPER, POINT, SERIES, STEPS, Drawing, frame

_LOG_ABOVE_RATIO = 6.0
_COSTS: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "latency": ("latency_p50_sec", "median latency", figures.seconds),
    "memory": ("peak_rss_bytes", "peak memory", figures.size),
    "size": ("size_bytes", "size on disk", figures.size),
}


def drawings(points: Sequence[dict[str, Any]]) -> dict[str, Drawing]:
    """A plot for each cost, by its name."""
    return {name: _drawing(points, name) for name in _COSTS}


def _drawing(points: Sequence[dict[str, Any]], cost: str) -> Drawing:
    return Drawing(
        f"Exact match against {_COSTS[cost][1]}",
        lambda figure, titles: _draw(figure, titles, points, cost),
    )


def _draw(
    figure: Figure, titles: dict[str, str], points: Sequence[dict[str, Any]], cost: str
) -> None:
    """The 95 % interval is a bar; left and up is better."""
    key, label, spell = _COSTS[cost]
    axes = figure.add_axes(frame(figure, left=0.66, bottom=0.62))
    edge = _cost_axis(axes, points, key, spell)
    places = [min(float(point[key]), edge) for point in points]
    _front(axes, [point for point in points if point[f"front_{cost}"]], key)
    for point, place in zip(points, places, strict=True):
        colour = ACCENT if point["recommended"] else SERIES
        beyond = point[key] > edge
        axes.vlines(
            place,
            100 * point["exact_low"],
            100 * point["exact_high"],
            color=colour,
            linewidth=1.2,
            alpha=0.5,
            zorder=2,
        )
        identifier = f"{POINT}{point['name']}"
        axes.plot(
            [place],
            [100 * point["exact"]],
            gid=identifier,
            zorder=3,
            clip_on=False,
            marker=">" if beyond else "o" if point["engine"] == "llama.cpp" else "D",
            markersize=9 if point["recommended"] else 7,
            markerfacecolor=colour if point["engine"] == "llama.cpp" else PAPER,
            markeredgecolor=colour,
            markeredgewidth=1.4,
            linestyle="none",
        )
        titles[identifier] = (
            f"{point['name']}: {spell(point[key])}, {figures.percent(point['exact'])} exact match "
            f"({point['exact_low'] * 100:.1f}–{point['exact_high'] * 100:.1f})"
        )
    _share_axis(axes, points)
    axes.set_xlabel(f"{label}, less is better")
    axes.set_title("exact match, %", loc="left", color=MUTED)
    labels.place(
        axes,
        [(place, 100 * point["exact"]) for point, place in zip(points, places, strict=True)],
        [
            f"{point['name']}: {spell(point[key])}" if point[key] > edge else point["name"]
            for point in points
        ],
        [ACCENT if point["recommended"] else INK for point in points],
        MUTED,
        [
            (place, 100 * point["exact_low"], 100 * point["exact_high"])
            for point, place in zip(points, places, strict=True)
        ],
    )


def _front(axes: Axes, points: Sequence[dict[str, Any]], key: str) -> None:
    """A stair along the best accuracy that each cost buys."""
    ordered = sorted(points, key=lambda point: float(point[key]))
    axes.plot(
        [point[key] for point in ordered],
        [100 * point["exact"] for point in ordered],
        drawstyle="steps-post", color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1,
    )  # fmt: skip


def _cost_axis(
    axes: Axes, points: Sequence[dict[str, Any]], key: str, spell: Callable[[float], str]
) -> float:
    """The horizontal axis, made for the GGUF variants.

    Returns:
        The right edge, in data units: a baseline beyond it is drawn there as an arrow, since an
        axis that held it would squeeze what the reader has to tell apart.
    """
    values = [float(point[key]) for point in points if point["engine"] == "llama.cpp"]
    low, high = min(values), max(values)
    others = [float(point[key]) for point in points if point["engine"] != "llama.cpp"]
    if high / low > _LOG_ABOVE_RATIO:
        axes.set_xscale("log")
        low, high = low / 1.4, high * 2
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        span = max(high - low, 0.1 * high)
        low, high = max(0.0, low - 0.15 * span), high + 0.35 * span
        if others and max(others) < high + 2 * span:
            high = max(high, max(others) + 0.3 * span)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: _tick(value, spell)))
    axes.tick_params(which="both", length=0)
    return high


def _tick(value: float, spell: Callable[[float], str]) -> str:
    """A tick's label without the zeros that a measured figure has."""
    number, _, unit = spell(value).partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {unit}"


def _share_axis(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    low = min(100 * point["exact_low"] for point in points)
    high = max(100 * point["exact_high"] for point in points)
    margin = max(0.06 * (high - low), 0.1)
    axes.set_ylim(max(0.0, low - margin), min(100.0 + margin, high + margin))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.tick_params(length=0)
