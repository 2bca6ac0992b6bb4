"""The section's plots: speed by batch, and memory."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from stages.report import figures
from stages.report.canvas import INK, MUTED, PAPER, SERIES, Drawing, both, frame, rows
from stages.report.gpu.schema import Gpu, GpuCell
from stages.report.gpu.section import GENERATE, GRAPH

_ENGINES = {GRAPH: "captured CUDA graphs", GENERATE: "generate, as it comes"}
_MARKERS = "osD^vPX"
_NAMES_INCHES = 1.45
_LINE_POINTS = 15.0


def plots(gpu: Gpu) -> dict[str, dict[str, str]]:
    """Every plot as inline SVG: plot name to `wide` and `narrow`."""
    cells, first = gpu["cells"], gpu["first"]
    measured = {one["engine"] for one in cells}
    engine = GRAPH if GRAPH in measured else GENERATE
    shown = [one for one in cells if one["engine"] == engine]
    variants = list(dict.fromkeys(one["variant"] for one in shown))
    return both(
        {
            "gpu-decode": Drawing(
                "Decoded tokens per second by batch size",
                lambda figure, titles: _speeds(figure, titles, cells, first),
                {"narrow": 0.9 + 3.2 * len(measured)},
            ),
            "gpu-memory": Drawing(
                f"Peak VRAM on {_ENGINES[engine]}",
                lambda figure, titles: _memory(figure, titles, shown, variants),
                rows(len(variants)),
            ),
        }
    )


def _speeds(figure: Figure, titles: dict[str, str], cells: Sequence[GpuCell], first: str) -> None:
    """A panel an engine, beside or below; one scale, so that the engines can be compared."""
    engines = [engine for engine in _ENGINES if any(one["engine"] == engine for one in cells)]
    left, bottom, width, height = frame(figure, left=0.66, bottom=0.62)
    names = _NAMES_INCHES / figure.get_figwidth()
    count = len(engines)
    beside = figure.get_figwidth() > 6
    if beside:
        each = (width - names * count) / count
        boxes = [(left + (each + names) * n, bottom, each, height) for n in range(count)]
    else:
        gap = 0.5 / figure.get_figheight()
        each = (height - gap * (count - 1)) / count
        boxes = [
            (left, bottom + (each + gap) * (count - 1 - n), width - names, each)
            for n in range(count)
        ]
    speeds = [one["decode_tokens_per_sec"] for one in cells]
    for number, (engine, box) in enumerate(zip(engines, boxes, strict=True)):
        axes = figure.add_axes(box)
        axes.set_yscale("log")
        axes.set_ylim(min(speeds) / 1.15, max(speeds) * 1.15)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="both", length=0, labelleft=not (beside and number))
        axes.set_title(f"tokens/s, {_ENGINES[engine]}", loc="left", color=MUTED)
        _lines(axes, titles, [one for one in cells if one["engine"] == engine], first)
        if beside or engine == engines[-1]:
            axes.set_xlabel("sequences of a batch")


def _lines(axes: Axes, titles: dict[str, str], cells: Sequence[GpuCell], first: str) -> None:
    """A line a variant, named at its right end."""
    batches = sorted({one["batch"] for one in cells})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(batches))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:.0f}"))
    ends: list[tuple[float, str]] = []
    variants = list(dict.fromkeys(one["variant"] for one in cells))
    for number, variant in enumerate(variants):
        points = sorted(
            (one["batch"], one["decode_tokens_per_sec"])
            for one in cells
            if one["variant"] == variant
        )
        colour = INK if variant == first else SERIES
        axes.plot(
            [batch for batch, _ in points], [speed for _, speed in points], color=colour,
            linewidth=1.5, linestyle="--" if variant == first else "-",
            zorder=4 if variant == first else 2,
        )  # fmt: skip
        for batch, speed in points:
            identifier = f"{cells[0]['engine']}-{variant}-{batch}"
            axes.plot(
                [batch], [speed], marker=_MARKERS[number % len(_MARKERS)], markersize=6,
                markerfacecolor=PAPER, markeredgecolor=colour, markeredgewidth=1.4,
                linestyle="none", gid=identifier, clip_on=False,
                zorder=5 if variant == first else 3,
            )  # fmt: skip
            titles[identifier] = f"{variant} at batch {batch}: {figures.per_second(speed)} tokens/s"
        ends.append((points[-1][1], variant))
    _name_ends(axes, batches[-1], ends, first)


def _name_ends(axes: Axes, batch: int, ends: Sequence[tuple[float, str]], first: str) -> None:
    """Names beside the lines' ends, moved apart where the lines are not."""
    heights = [float(axes.transData.transform((batch, speed))[1]) for speed, _ in ends]
    for (speed, variant), height, place in zip(
        ends, heights, _apart(heights, axes.bbox.y1), strict=True
    ):
        axes.annotate(
            variant, (batch, speed), (12, place - height), textcoords="offset points",
            va="center", color=INK if variant == first else MUTED, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )  # fmt: skip


def _apart(heights: Sequence[float], highest: float) -> list[float]:
    """Places in the same order, a line apart at least and as near as that and the top allow."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    lowest = highest - _LINE_POINTS * (len(heights) - 1)
    groups: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        # Less a line a rank, places may not fall: neighbours that would, share their mean.
        mean, count = min(heights[index] - _LINE_POINTS * rank, lowest), 1
        while groups and groups[-1][0] > mean:
            other, others = groups.pop()
            mean = (mean * count + other * others) / (count + others)
            count += others
        groups.append((mean, count))
    level = [mean for mean, count in groups for _ in range(count)]
    placed = [0.0] * len(heights)
    for rank, index in enumerate(order):
        placed[index] = level[rank] + _LINE_POINTS * rank
    return placed


def _memory(
    figure: Figure, titles: dict[str, str], cells: Sequence[GpuCell], variants: Sequence[str]
) -> None:
    """Peak of each variant: at the smallest batch, and what the largest takes on top."""
    small, large = (pick(one["batch"] for one in cells) for pick in (min, max))
    peaks = {(one["variant"], one["batch"]): one["peak_allocated_bytes"] for one in cells}
    largest = max(peaks.values())
    axes = figure.add_axes(frame(figure, left=_NAMES_INCHES, bottom=0.1))
    for row, variant in enumerate(reversed(variants)):
        low, high = peaks[variant, small], peaks[variant, large]
        spelled = f"{figures.size(low)} at batch {small}"
        if large != small:
            spelled += f", {figures.size(high)} at {large}"
            axes.barh(row, high / largest, height=0.62, color=SERIES, alpha=0.35)
        axes.barh(row, low / largest, height=0.62, color=SERIES)
        axes.patches[-1].set_gid(f"vram-{variant}")
        titles[f"vram-{variant}"] = f"{variant}: {spelled}"
        wide = figure.get_figwidth() > 6
        axes.annotate(
            spelled if wide else figures.size(high), (max(low, high) / largest, row), (5, 0),
            textcoords="offset points", va="center",
        )  # fmt: skip
    axes.set_yticks(range(len(variants)), list(reversed(variants)))
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xlim(0, 1.5 if figure.get_figwidth() > 6 else 1.4)
    axes.set_ylim(-0.6, len(variants) - 0.4)
    axes.xaxis.set_visible(False)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
