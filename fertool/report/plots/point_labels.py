"""Names beside the points of a figure, where they cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox


@dataclass(frozen=True)
class LabeledPoint:
    """A point with its name, at `x` and the middle of `interval`, in units of the axes.

    `interval` has the lower end of a vertical bar, the point itself and the upper end; `bar` the
    ends of a horizontal one, where there is one.
    """

    name: str
    x: float
    interval: tuple[float, float, float]
    bar: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Place:
    """Where a label stands: at an element of the interval, and shifted from there.

    `right` and `up` are in printer's points.
    """

    end: int
    right: int
    up: int


_LOW, _MIDDLE, _HIGH = 0, 1, 2
# The preferred place first.
_PLACES = (
    _Place(_MIDDLE, right=10, up=0),
    _Place(_MIDDLE, right=-10, up=0),
    _Place(_HIGH, right=0, up=5),
    _Place(_LOW, right=0, up=-5),
    _Place(_HIGH, right=5, up=5),
    _Place(_HIGH, right=-5, up=5),
    _Place(_LOW, right=5, up=-5),
    _Place(_LOW, right=-5, up=-5),
    _Place(_HIGH, right=0, up=18),
)


def place_labels(axes: Axes, points: Sequence[LabeledPoint]) -> None:
    """Write each name beside its point, where it covers no point, interval, bar or other name.

    Where there is no such place, the one that covers the fewest of these is taken.
    """
    taken: list[Bbox] = []
    for point in points:
        taken += _point_boxes(axes, point)
    for point in points:
        place = _best_place(axes, point, taken)
        label = _write_label(axes, point, place)
        taken.append(label.get_window_extent())


def _point_boxes(axes: Axes, point: LabeledPoint) -> list[Bbox]:
    """Return what a point covers, in pixels: its marker, its interval and its bar."""
    from matplotlib.transforms import Bbox

    low_end, y, high_end = point.interval
    ends = [(point.x, low_end), (point.x, y), (point.x, high_end)]
    (x, low), (_, middle), (_, high) = axes.transData.transform(ends)
    # About the sizes of a marker and of the caps of an interval, with a little room.
    marker = Bbox.from_bounds(x - 8, middle - 8, 16, 16)
    interval = Bbox.from_bounds(x - 5, low, 10, high - low)
    if point.bar is None:
        return [marker, interval]

    left_end, right_end = point.bar
    (left, middle), (right, _) = axes.transData.transform([(left_end, y), (right_end, y)])
    return [marker, interval, Bbox.from_bounds(left, middle - 5, right - left, 10)]


def _best_place(axes: Axes, point: LabeledPoint, taken: Sequence[Bbox]) -> _Place:
    """Return the first place where a label covers nothing, else that where it covers least."""
    best, fewest = _PLACES[0], len(taken) + 2
    for place in _PLACES:
        # How large a text is, Matplotlib knows once it is drawn.
        label = _write_label(axes, point, place)
        box = label.get_window_extent()
        label.remove()
        covered = sum(box.overlaps(other) for other in taken)
        if not _is_inside(axes, box):
            covered += 1
        if covered < fewest:
            best, fewest = place, covered
        if covered == 0:
            break
    return best


def _is_inside(axes: Axes, box: Bbox) -> bool:
    frame = axes.get_window_extent()
    fits_across: bool = frame.x0 <= box.x0 and box.x1 <= frame.x1
    fits_down: bool = frame.y0 <= box.y0 and box.y1 <= frame.y1
    return fits_across and fits_down


def _write_label(axes: Axes, point: LabeledPoint, place: _Place) -> Annotation:
    return axes.annotate(
        point.name,
        (point.x, point.interval[place.end]),
        xytext=(place.right, place.up),
        textcoords="offset points",
        # Shifted to the right, a label begins there; to the left, it ends there.
        ha=_alignment(place.right, "left", "right"),
        va=_alignment(place.up, "bottom", "top"),
        fontsize=9,
        parse_math=False,
    )


def _alignment(shift: int, if_positive: str, if_negative: str) -> str:
    if shift == 0:
        return "center"
    return if_positive if shift > 0 else if_negative
