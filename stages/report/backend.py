"""The plots of what the CPU bench measured and of training, and the page they stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from stages.report import figures, labels
from stages.report.canvas import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    SERIES,
    STEPS,
    Drawing,
    both,
    frame,
    rows,
)

_LOG_ABOVE_RATIO = 6.0
_NAME_INCHES = 1.75


def plots(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Every plot as inline SVG: plot name to `wide` and `narrow`."""
    points, curve, confidence = data["variants"], data["learning_curve"], data["confidence"]
    drawings: dict[str, Drawing] = {
        "latency": Drawing(
            "Exact match against median latency",
            lambda figure, titles: _scatter(
                figure, titles, points, "latency_p50_sec", "median latency", figures.seconds
            ),
        ),
        "memory": Drawing(
            "Exact match against peak memory",
            lambda figure, titles: _scatter(
                figure, titles, points, "peak_rss_bytes", "peak memory", figures.size
            ),
        ),
        "size": Drawing(
            "Size on disk",
            lambda figure, titles: _bars(figure, titles, points),
            rows(len(points)),
        ),
    }
    if curve:
        drawings["curve"] = Drawing(
            "Learning curve",
            lambda figure, titles: _curve(figure, titles, curve),
        )
    if confidence:
        drawings["confidence"] = Drawing(
            "Exact match by share answered and by probability",
            lambda figure, titles: _confidence(figure, titles, confidence),
        )
    return both(drawings)


def page(content: dict[str, Any], template: str = "report.html.j2") -> str:
    """An HTML page from a template beside this file; every value is escaped but the SVG."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=figures.percent,
        interval=figures.interval,
        seconds=figures.seconds,
        size=figures.size,
        per_second=figures.per_second,
    )
    return environment.get_template(template).render(**content)


def _scatter(
    figure: Figure,
    titles: dict[str, str],
    points: Sequence[dict[str, Any]],
    key: str,
    label: str,
    spell: Callable[[float], str],
) -> None:
    """Exact match over a cost, with the 95 % interval as a bar; left and up is better."""
    axes = figure.add_axes(frame(figure, left=0.66, bottom=0.62))
    edge = _cost_axis(axes, points, key, spell)
    places = [min(float(point[key]), edge) for point in points]
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
        identifier = f"point-{point['name']}"
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
            high = max(others) + 0.3 * span
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


def _bars(figure: Figure, titles: dict[str, str], points: Sequence[dict[str, Any]]) -> None:
    """Size of each variant, largest on top, with bits a weight."""
    ordered = sorted(points, key=lambda point: point["size_bytes"])
    axes = figure.add_axes(frame(figure, left=_NAME_INCHES, bottom=0.1))
    largest = max(point["size_bytes"] for point in ordered)
    for row, point in enumerate(ordered):
        identifier = f"bar-{point['name']}"
        spelled = figures.size(point["size_bytes"])
        if point["engine"] == "llama.cpp":
            spelled += f" · {point['bits_per_weight']:.1f} bit"
        axes.barh(
            row, point["size_bytes"] / largest, height=0.62, gid=identifier,
            color=ACCENT if point["recommended"] else SERIES,
        )  # fmt: skip
        axes.patches[-1].set_gid(identifier)
        axes.annotate(
            spelled, (point["size_bytes"] / largest, row), (5, 0), textcoords="offset points",
            va="center", color=ACCENT if point["recommended"] else INK,
        )  # fmt: skip
        titles[identifier] = f"{point['name']}: {spelled}"
    axes.set_yticks(range(len(ordered)), [point["name"] for point in ordered])
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xlim(0, 1.28 if figure.get_figwidth() > 6 else 2.05)
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.xaxis.set_visible(False)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _curve(figure: Figure, titles: dict[str, str], curve: Sequence[dict[str, Any]]) -> None:
    """Loss above, exact match on the validation rows below, over the steps."""
    evaluated = [one for one in curve if one.get("eval_exact_match") is not None]
    left, bottom, width, height = frame(figure, left=0.66, bottom=0.62)
    panels = 2 if evaluated else 1
    gap = 0.45 / figure.get_figheight()
    each = (height - gap * (panels - 1)) / panels
    upper = figure.add_axes((left, bottom + (each + gap) * (panels - 1), width, each))
    drawn = [
        _line(upper, titles, curve, "loss", "training", SERIES, ""),
        _line(upper, titles, curve, "eval_loss", "validation", ACCENT, "o"),
    ]
    losses = [
        one[key] for one in curve for key in ("loss", "eval_loss") if one.get(key) is not None
    ]
    if min(losses) > 0 and max(losses) / min(losses) > _LOG_ABOVE_RATIO:
        upper.set_title("loss, logarithmic", loc="left", color=MUTED)
        upper.set_yscale("log")
        upper.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        upper.yaxis.set_minor_formatter(NullFormatter())
    else:
        upper.set_title("loss", loc="left", color=MUTED)
        upper.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    upper.tick_params(length=0, which="both")
    if all(drawn):
        upper.legend(
            frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0,
            handlelength=1.4, columnspacing=1.2, borderpad=0.2,
        )  # fmt: skip
    last = upper
    if evaluated:
        upper.tick_params(labelbottom=False)
        last = figure.add_axes((left, bottom, width, each), sharex=upper)
        scaled = [one | {"share": 100 * one["eval_exact_match"]} for one in evaluated]
        _line(last, titles, scaled, "share", "exact match", ACCENT, "o")
        last.set_title("exact match on validation rows, %", loc="left", color=MUTED)
        last.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
        last.set_ylim(top=101)
        last.tick_params(length=0)
    last.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
    last.set_xlabel("step")


def _confidence(figure: Figure, titles: dict[str, str], confidence: dict[str, Any]) -> None:
    """Exact match of the surest answers, and of answers of like probability; beside or below."""
    left, bottom, width, height = frame(figure, left=0.66, bottom=0.62)
    if figure.get_figwidth() > 6:
        gap = 0.9 / figure.get_figwidth()
        each = (width - gap) / 2
        boxes = [(left, bottom, each, height), (left + each + gap, bottom, each, height)]
    else:
        gap = 1.05 / figure.get_figheight()
        each = (height - gap) / 2
        boxes = [(left, bottom + each + gap, width, each), (left, bottom, width, each)]
    coverage, bins = confidence["coverage"], confidence["calibration"]["bins"]
    first, second = (figure.add_axes(box) for box in boxes)
    _rates(first, titles, "coverage", [(100 * one["share"], one["exact"]) for one in coverage])
    first.set_xlabel("share of the requests answered, the surest first, %")
    first.set_title("exact match among them, %", loc="left", color=MUTED)
    second.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle="--", zorder=1)
    _rates(second, titles, "bin", [(100 * one["mean_probability"], one["exact"]) for one in bins])
    second.set_xlim(0, 102)
    second.set_ylim(0, 103)
    second.set_xlabel("probability that the model gives, %")
    second.set_title("exact match, %; dashed: as promised", loc="left", color=MUTED)


def _rates(
    axes: Axes, titles: dict[str, str], name: str, points: Sequence[tuple[float, dict[str, Any]]]
) -> None:
    """Rates with their intervals over a share, both in percent."""
    for number, (place, rate) in enumerate(points):
        axes.vlines(
            place, 100 * rate["low"], 100 * rate["high"], color=ACCENT, linewidth=1.2, alpha=0.5
        )
        identifier = f"{name}-{number}"
        axes.plot(
            [place], [100 * rate["value"]], marker="o", markersize=5, color=ACCENT,
            linestyle="none", gid=identifier, clip_on=False, zorder=3,
        )  # fmt: skip
        titles[identifier] = (
            f"{place:.0f} %: {figures.percent(rate['value'])} right of {rate['n']:,} "
            f"({figures.interval(rate)})"
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.tick_params(length=0)


def _line(
    axes: Axes,
    titles: dict[str, str],
    curve: Sequence[dict[str, Any]],
    key: str,
    label: str,
    colour: str,
    marker: str,
) -> bool:
    """One series over the steps that have it; the points of a marked one have tooltips."""
    known = [one for one in curve if one.get(key) is not None]
    if not known:
        return False
    axes.plot(
        [one["step"] for one in known], [one[key] for one in known],
        color=colour, linewidth=1.5, label=label, marker=marker, markersize=3.5,
    )  # fmt: skip
    if marker:
        for one in known:
            identifier = f"step-{key}-{one['step']}"
            axes.plot(
                [one["step"]], [one[key]], marker="o", markersize=3.5, color=colour, gid=identifier
            )
            titles[identifier] = f"step {one['step']}: {label} {figures.significant(one[key])}"
    return True
