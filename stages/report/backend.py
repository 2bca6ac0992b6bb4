"""The plots of what the CPU bench measured and of training, and the page they stand on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from stages.report import figures, scatter, strips
from stages.report.canvas import (
    ACCENT,
    MUTED,
    SERIES,
    STEPS,
    Drawing,
    both,
    frame,
)

_LOG_ABOVE_RATIO = 6.0


def plots(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Every plot as inline SVG: plot name to `wide` and `narrow`."""
    curve, confidence = data["learning_curve"], data["confidence"]
    drawings = {**scatter.drawings(data["variants"]), **strips.drawings(data)}
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
