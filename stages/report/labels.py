"""Names beside points, none on top of another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

Point = tuple[float, float]

_CLEARANCE = 6.0
_RADII = (9.0, 15.0, 22.0, 30.0, 40.0, 52.0, 66.0)
_DIRECTIONS = 16
_LEADER_FROM = 16.0


def place(
    axes: Axes,
    points: Sequence[Point],
    names: Sequence[str],
    colours: Sequence[str],
    leader: str,
) -> None:
    """Writes each name at the nearest free place around its point, with a thin line if far off.

    Args:
        axes: Where the points are drawn; its limits must be final.
        points: Their data coordinates.
        names: One a point.
        colours: Of the names.
        leader: Colour of the thin lines.
    """
    frame = axes.get_window_extent()
    centres: list[Point] = [
        (float(x), float(y)) for x, y in (axes.transData.transform(point) for point in points)
    ]
    taken: list[Bbox] = []
    # Crowded points first: they have the fewest places to go.
    order = sorted(range(len(points)), key=lambda one: -_crowd(centres, one))
    for index in order:
        text = axes.annotate(
            names[index], points[index], (0, 0), textcoords="offset points", color=colours[index],
            ha="center", va="center", zorder=4,
        )  # fmt: skip
        box = text.get_window_extent()
        best = min(
            _offsets(box.width, box.height),
            key=lambda offset: _cost(box, offset, frame, taken, centres, index),
        )
        text.set_position(best)
        taken.append(box.translated(*best).padded(1.5))
        if _gap(box, best) > _LEADER_FROM:
            _draw_leader(axes, centres[index], box.translated(*best), leader)


def _crowd(centres: Sequence[Point], index: int) -> int:
    return sum(math.dist(centres[index], other) < 60 for other in centres)


def _offsets(width: float, height: float) -> list[Point]:
    """Places for a label's centre: rings around the point, the right side first."""
    turns = sorted(
        (2 * math.pi * step / _DIRECTIONS for step in range(_DIRECTIONS)),
        key=lambda turn: (round(1 - math.cos(turn), 6), -math.sin(turn)),
    )
    return [
        (
            math.cos(turn) * (radius + width / 2),
            math.sin(turn) * (radius + height / 2),
        )
        for radius, turn in itertools.product(_RADII, turns)
    ]


def _cost(
    box: Bbox,
    offset: Point,
    frame: Bbox,
    taken: Sequence[Bbox],
    centres: Sequence[Point],
    index: int,
) -> float:
    """Overlaps weigh more than any distance; of free places the nearest wins."""
    moved = box.translated(*offset)
    cost = _gap(box, offset) + (0.0 if offset[0] > 0 else 2.0)
    cost += 1e3 * sum(_area(moved, other) > 0 for other in taken)
    for number, (x, y) in enumerate(centres):
        near = (
            moved.x0 - _CLEARANCE < x < moved.x1 + _CLEARANCE
            and moved.y0 - _CLEARANCE < y < moved.y1 + _CLEARANCE
        )
        cost += (4e2 if number != index else 2e2) * near
    inside = (
        frame.x0 <= moved.x0
        and moved.x1 <= frame.x1
        and frame.y0 <= moved.y0
        and moved.y1 <= frame.y1
    )
    return cost if inside else cost + 2e3


def _area(one: Bbox, other: Bbox) -> float:
    width: float = min(one.x1, other.x1) - max(one.x0, other.x0)
    height: float = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def _gap(box: Bbox, offset: Point) -> float:
    """Distance from the point to the nearest edge of the label."""
    return math.hypot(
        max(0.0, abs(offset[0]) - box.width / 2), max(0.0, abs(offset[1]) - box.height / 2)
    )


def _draw_leader(axes: Axes, centre: Point, box: Bbox, colour: str) -> None:
    """A line from the point to the label's edge."""
    end = (min(max(centre[0], box.x0), box.x1), min(max(centre[1], box.y0), box.y1))
    inverse = axes.transData.inverted()
    (x0, y0), (x1, y1) = inverse.transform([centre, end])
    axes.plot([x0, x1], [y0, y1], color=colour, linewidth=0.6, zorder=1)
