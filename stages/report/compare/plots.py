"""Both sides of every variant with their intervals, one line a variant."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stages.report import figures
from stages.report.canvas import ACCENT, INK, MUTED, SERIES, STEPS, Drawing, both, frame, rows
from stages.report.compare.schema import Comparison

_NAME_INCHES = 1.55
_OFFSET = 0.17
Interval = tuple[float, float, float]


def plots(found: Comparison) -> dict[str, dict[str, str]]:
    """Every plot as inline SVG: its name to `wide` and `narrow`."""
    names = [pair["name"] for pair in found["pairs"]]
    labels = [side["label"] for side in found["sides"]]
    exact = [
        [(one["value"], one["low"], one["high"]) for one in pair["exact_rates"]]
        for pair in found["pairs"]
    ]
    latency = [
        [(one["p50"], one["low"], one["high"]) for one in pair["latency_sec"]]
        for pair in found["pairs"]
    ]
    height = rows(len(names) + 2)
    return both(
        {
            "exact": Drawing(
                "Exact match of both, by variant",
                lambda figure, titles: _lines(
                    figure, titles, names, labels, exact, figures.percent
                ),
                height,
            ),
            "latency": Drawing(
                "Median latency of both, by variant",
                lambda figure, titles: _lines(
                    figure, titles, names, labels, latency, figures.seconds
                ),
                height,
            ),
        }
    )


def _lines(
    figure: Figure,
    titles: dict[str, str],
    names: Sequence[str],
    labels: Sequence[str],
    values: Sequence[Sequence[Interval]],
    spell: Callable[[float], str],
) -> None:
    axes = figure.add_axes(frame(figure, left=_NAME_INCHES, bottom=0.42))
    for row, (name, sides) in enumerate(zip(names, values, strict=True)):
        for side, (value, low, high) in enumerate(sides):
            _mark(axes, titles, row + (side - 0.5) * 2 * _OFFSET, side, f"{name}, {labels[side]}",
                  (value, low, high), spell)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: spell(value)))
    axes.set_title(f"●  {labels[0]}     ◆  {labels[1]}", loc="left", color=MUTED)


def _mark(
    axes: Axes,
    titles: dict[str, str],
    y: float,
    side: int,
    name: str,
    interval: Interval,
    spell: Callable[[float], str],
) -> None:
    value, low, high = interval
    colour = (SERIES, ACCENT)[side]
    axes.hlines(y, low, high, color=colour, linewidth=1.4, alpha=0.6)
    identifier = f"mark-{name}"
    axes.plot([value], [y], marker="oD"[side], markersize=6.5, color=colour, linestyle="none",
              gid=identifier, clip_on=False)  # fmt: skip
    titles[identifier] = f"{name}: {spell(value)} ({spell(low)} to {spell(high)})"
