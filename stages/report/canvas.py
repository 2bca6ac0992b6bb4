"""What every plot is drawn on: colours, type, sizes, and the way from matplotlib to a page.

A plot is drawn with placeholder colours that CSS variables replace in the SVG, so that one drawing
serves a light page, a dark one and paper. Text stays text. Each is drawn twice, for a wide page and
for a phone, since an SVG that is scaled down takes its letters with it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("svg")

_SVG = "http://www.w3.org/2000/svg"
INK, MUTED, GRID, ACCENT, SERIES, PAPER = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    SERIES: "var(--series)",
    PAPER: "var(--paper)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
# Inches at 72 units an inch: the width in units is the width in CSS pixels at natural size.
_SIZES = {"wide": (10.2, 5.2), "narrow": (4.7, 4.7)}
STEPS = (1, 2, 2.5, 5, 10)
"""Of an axis' ticks."""

POINT = "point-"
"""What the id of a variant's point begins with; on the page it has the name as `data-point`."""

Draw = Callable[[Figure, dict[str, str]], None]


class Drawing(NamedTuple):
    """A plot to be made: its description, what draws it, and heights other than the usual ones."""

    label: str
    draw: Draw
    heights_inches: Mapping[str, float] = MappingProxyType({})


def rows(count: int) -> dict[str, float]:
    """Heights of a plot of so many bars."""
    return dict.fromkeys(_SIZES, 0.7 + 0.44 * count)


def both(drawings: Mapping[str, Drawing]) -> dict[str, dict[str, str]]:
    """Every drawing as inline SVG: its name to `wide` and `narrow`."""
    return {
        name: {
            kind: _svg(
                f"{name}-{kind}",
                one.label,
                one.draw,
                (width, one.heights_inches.get(kind, height)),
            )
            for kind, (width, height) in _SIZES.items()
        }
        for name, one in drawings.items()
    }


def _svg(name: str, label: str, draw: Draw, size: tuple[float, float]) -> str:
    """Draws a figure; `draw` fills a mapping of element id to tooltip."""
    titles: dict[str, str] = {}
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, dpi=72)
        draw(figure, titles)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), name, label, titles)


def _inline(text: str, name: str, label: str, titles: dict[str, str]) -> str:
    """Makes matplotlib's document an element of a page: scaled, described, coloured by CSS."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(text)
    for child in list(root):
        if child.tag.endswith("metadata"):
            root.remove(child)
    for key in ("width", "height"):
        root.attrib.pop(key)
    root.attrib |= {"role": "img", "aria-label": label}
    for element in root.iter():
        identifier = element.get("id")
        if identifier in titles:
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = titles[identifier]
            element.insert(0, title)
            if identifier.startswith(POINT):
                element.attrib["data-point"] = identifier.removeprefix(POINT)
        # Ids of one page are one namespace; only those that are referred to are kept.
        if identifier and not re.fullmatch(r"[mp][0-9a-f]{10}", identifier):
            del element.attrib["id"]
    inline = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _COLOURS.items():
        inline = inline.replace(colour, variable)
    return inline.replace("'DejaVu Sans'", "var(--font)")


def as_file(inline: str) -> str:
    """An inline SVG as a file of its own, in the colours of the page's light side."""
    css = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light = dict(reversed(re.findall(r"--(\w+): (#[0-9a-f]{6});", css)))
    svg = inline.replace("currentColor", light["ink"]).replace("var(--font)", "sans-serif")
    svg = re.sub(r"var\(--(\w+)\)", lambda name: light[name[1]], svg)
    root = ElementTree.fromstring(svg)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib |= {"width": width, "height": height}
    paper = {"width": width, "height": height, "fill": light["paper"]}
    root.insert(0, ElementTree.Element(f"{{{_SVG}}}rect", paper))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def frame(figure: Figure, left: float, bottom: float) -> tuple[float, float, float, float]:
    """The axes' rectangle as shares of the figure, from margins in inches."""
    width, height = figure.get_figwidth(), figure.get_figheight()
    return (
        left / width,
        bottom / height,
        1 - (left + 0.14) / width,
        1 - (bottom + 0.36) / height,
    )
