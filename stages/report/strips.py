"""Plots of one figure and its interval a line or a place: slices, threads."""

from __future__ import annotations

import itertools
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stages.report import figures
from stages.report.canvas import ACCENT, INK, MUTED, STEPS, Drawing, frame, rows

_NAME_INCHES = 1.9
_GROUP_GAP = 0.9


def drawings(plots: dict[str, Any]) -> dict[str, Drawing]:
    """Those for which there is data."""
    slices, threads = plots["slices"], plots["threads"]
    found = {}
    if slices:
        groups = len({one["key"] for one in slices})
        found["slices"] = Drawing(
            "Exact match by slice",
            lambda figure, titles: _slices(figure, titles, slices),
            rows(len(slices) * 0.62 + groups * 0.62 + 1),
        )
    if threads and len(threads["points"]) > 1:
        found["threads"] = Drawing(
            "Median latency by threads",
            lambda figure, titles: _threads(figure, titles, threads),
        )
    return found


def _slices(figure: Figure, titles: dict[str, str], slices: list[dict[str, Any]]) -> None:
    """A line for each value of each slice, the slices' names above their values."""
    axes = figure.add_axes(frame(figure, left=_NAME_INCHES, bottom=0.42))
    place, ticks, names = 0.0, [], []
    for key, values in itertools.groupby(slices, key=lambda one: one["key"]):
        axes.annotate(
            key.replace("_", " "), (0, place), (-_NAME_INCHES * 72, 0), va="center", color=MUTED,
            xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        )  # fmt: skip
        place += 1
        for one in values:
            exact, name = one["exact"], one["value"].replace("_", " ")
            axes.hlines(
                place, 100 * exact["low"], 100 * exact["high"], color=ACCENT, linewidth=1.2,
                alpha=0.5,
            )  # fmt: skip
            identifier = f"slice-{key}-{name}"
            axes.plot(
                [100 * exact["value"]], [place], marker="o", markersize=5.5, color=ACCENT,
                linestyle="none", gid=identifier, clip_on=False,
            )  # fmt: skip
            titles[identifier] = (
                f"{key.replace('_', ' ')}: {name}, {figures.percent(exact['value'])} of "
                f"{exact['n']:,} right ({figures.interval(exact)})"
            )
            ticks.append(place)
            names.append(name)
            place += 1
        place += _GROUP_GAP - 0.5
    axes.set_yticks(ticks, names)
    axes.set_ylim(place, -0.8)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.set_title("exact match, %", loc="left", color=MUTED)


def _threads(figure: Figure, titles: dict[str, str], threads: dict[str, Any]) -> None:
    """Median latency over threads, and what it would be if each brought as much as the first."""
    axes = figure.add_axes(frame(figure, left=0.86, bottom=0.62))
    points = threads["points"]
    counts = [one["threads"] for one in points]
    first = points[0]["latency_sec"]["p50"] * counts[0]
    axes.plot(counts, [1e3 * first / count for count in counts], color=MUTED, linestyle="--",
              linewidth=1)  # fmt: skip
    axes.plot(counts, [1e3 * one["latency_sec"]["p50"] for one in points], color=ACCENT,
              linewidth=1.4)  # fmt: skip
    for one in points:
        latency, identifier = one["latency_sec"], f"threads-{one['threads']}"
        axes.vlines(one["threads"], 1e3 * latency["p50_low"], 1e3 * latency["p50_high"],
                    color=ACCENT, linewidth=1.2, alpha=0.5)  # fmt: skip
        axes.plot([one["threads"]], [1e3 * latency["p50"]], marker="o", markersize=6, color=ACCENT,
                  linestyle="none", gid=identifier, clip_on=False)  # fmt: skip
        titles[identifier] = (
            f"{one['threads']} threads: {figures.seconds(latency['p50'])} median "
            f"({figures.seconds(latency['p50_low'])} to {figures.seconds(latency['p50_high'])})"
        )
    axes.set_ylim(bottom=0)
    axes.set_xticks(counts)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g} ms"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.tick_params(length=0)
    axes.set_xlabel("threads")
    axes.set_title("median latency; dashed: if each brought as much as the first", loc="left",
                   color=MUTED, fontsize=10)  # fmt: skip
