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
_ROWS = 9
_ROW_STEP = 0.7
_LEADER_FROM = 16.0


def place(
    axes: Axes,
    points: Sequence[Point],
    names: Sequence[str],
    colours: Sequence[str],
    leader: str,
    bars: Sequence[tuple[float, float, float]] = (),
) -> None:
    """Writes each name at the nearest free place around its point, with a thin line if far off.

    Args:
        axes: Where the points are drawn; its limits must be final.
        points: Their data coordinates.
        names: One a point.
        colours: Of the names.
        leader: Colour of the thin lines.
        bars: Vertical lines to keep clear of where possible: x, and y from and to.
    """
    frame = axes.get_window_extent()
    centres: list[Point] = [
        (float(x), float(y)) for x, y in (axes.transData.transform(point) for point in points)
    ]
    crossing = [_ends(axes, bar) for bar in bars]
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
            key=lambda offset: (
                _cost(box, offset, frame, taken, centres, index)
                + 25 * _crossed(box.translated(*offset), crossing)
            ),
        )
        text.set_position(best)
        taken.append(box.translated(*best).padded(1.5))
        moved = box.translated(*best)
        if _gap(box, best) > _LEADER_FROM or _belongs_elsewhere(moved, centres, index):
            _draw_leader(axes, centres[index], moved, leader)


def _crowd(centres: Sequence[Point], index: int) -> int:
    return sum(math.dist(centres[index], other) < 60 for other in centres)


def _offsets(width: float, height: float) -> list[Point]:
    """Places for a label's centre: beside the point, then in rows above and below it."""
    beside = _CLEARANCE + 3 + width / 2
    places = [(beside, 0.0), (-beside, 0.0)]
    for row, sign in itertools.product(range(_ROWS), (1, -1)):
        up = sign * (_CLEARANCE + 2 + height * (0.5 + _ROW_STEP * row))
        places += [(x, up) for x in (0.0, width / 2, -width / 2, beside, -beside)]
    return places


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
    cost = _gap(box, offset) + 0.02 * abs(offset[0]) + (0.0 if offset[0] > 0 else 2.0)
    cost += 6.0 * (offset[1] != 0)
    cost += 20.0 * _belongs_elsewhere(moved, centres, index)
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


def _belongs_elsewhere(box: Bbox, centres: Sequence[Point], index: int) -> bool:
    """Whether a reader would take the label for another point's."""
    away = [_away(box, centre) for centre in centres]
    return any(away[index] > one - 2 for number, one in enumerate(away) if number != index)


def _away(box: Bbox, point: Point) -> float:
    """Distance from a point to the label."""
    return math.hypot(
        max(box.x0 - point[0], 0.0, point[0] - box.x1),
        max(box.y0 - point[1], 0.0, point[1] - box.y1),
    )


def _ends(axes: Axes, bar: tuple[float, float, float]) -> tuple[float, float, float]:
    """A bar in display coordinates."""
    x, low, high = bar
    (x0, y0), (_, y1) = axes.transData.transform([(x, low), (x, high)])
    return float(x0), float(y0), float(y1)


def _crossed(box: Bbox, bars: Sequence[tuple[float, float, float]]) -> int:
    return sum(box.x0 < x < box.x1 and low < box.y1 and box.y0 < high for x, low, high in bars)


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
