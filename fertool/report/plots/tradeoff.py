"""File size and latency against accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fertool.report.plots.drawing import COLORS, GRID_COLOR, MARKERS, PNG, FigureFormat, new_figure
from fertool.report.plots.point_labels import LabeledPoint, place_labels
from fertool.report.printable import printable
from fertool.report.units import short_file_names
from fertool.results import FileResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Spread = tuple[float, float]
"""How far a bar reaches to the left and right of a point."""


def plot_size_against_accuracy(results: Sequence[FileResult], format: FigureFormat = PNG) -> bytes:
    """Return file size against accuracy for entries of a benchmark that have an accuracy."""
    sizes = [entry.size_bytes / 1e6 for entry in results]
    label = "file size (MB, log scale)"
    return _plot_tradeoff(results, sizes, [None] * len(results), label, format)


def plot_latency_against_accuracy(
    results: Sequence[FileResult], format: FigureFormat = PNG
) -> bytes:
    """Return latency against accuracy for entries of a benchmark that have an accuracy.

    Horizontal bars reach from the 10th to the 90th percentile.
    """
    medians: list[float] = []
    spreads: list[_Spread | None] = []
    for entry in results:
        median = 1e3 * entry.latency_s.median
        medians.append(median)
        samples = sorted(entry.samples_s)
        last = len(samples) - 1
        low, high = 1e3 * samples[int(0.1 * last)], 1e3 * samples[int(0.9 * last)]
        # Of two passes the 90th percentile is the first, which is below their median.
        spreads.append((max(0.0, median - low), max(0.0, high - median)))
    first = results[0]
    label = f"latency (ms, log scale), batch {first.batch}, threads: {first.threads}"
    return _plot_tradeoff(results, medians, spreads, label, format)


def _plot_tradeoff(
    results: Sequence[FileResult],
    xs: Sequence[float],
    spreads: Sequence[_Spread | None],
    xlabel: str,
    format: FigureFormat,
) -> bytes:
    names = short_file_names(results)
    with new_figure(7.5, 4.8, format) as (figure, drawn):
        axes = figure.subplots()
        points = []
        for index, (entry, x, spread) in enumerate(zip(results, xs, spreads, strict=True)):
            _plot_point(axes, index, entry, x, spread)
            points.append(_labeled_point(entry, x, spread, names[entry.file]))
        _style_axes(axes, results[0], xs, xlabel)
        # Labels are placed in pixels, which are known once the layout is.
        figure.draw_without_rendering()
        place_labels(axes, points)
    return format.finish(drawn)


def _accuracy_interval(entry: FileResult) -> tuple[float, float, float]:
    """Return lower end of the interval, accuracy and upper end, in percent."""
    figures = entry.headline
    assert figures is not None
    low, high = figures.accuracy_ci95
    return 100 * low, 100 * figures.accuracy, 100 * high


def _plot_point(
    axes: Axes, index: int, entry: FileResult, x: float, spread: _Spread | None
) -> None:
    low, y, high = _accuracy_interval(entry)
    axes.errorbar(
        x,
        y,
        xerr=[[spread[0]], [spread[1]]] if spread else None,
        # An interval in a file may lie beside its accuracy, which Matplotlib would refuse.
        yerr=[[max(0.0, y - low)], [max(0.0, high - y)]],
        fmt=MARKERS[index % len(MARKERS)],
        color=COLORS[index % len(COLORS)],
        markersize=8,
        capsize=3,
        elinewidth=1,
    )


def _labeled_point(entry: FileResult, x: float, spread: _Spread | None, name: str) -> LabeledPoint:
    left, right = spread or (0.0, 0.0)
    return LabeledPoint(name, x, _accuracy_interval(entry), bar=(x - left, x + right))


def _style_axes(axes: Axes, first: FileResult, xs: Sequence[float], xlabel: str) -> None:
    split, count = printable(first.split or ""), f"{first.n:,}"
    axes.set_xscale("log")
    axes.grid(color=GRID_COLOR)
    axes.set_axisbelow(True)
    axes.margins(x=0.2, y=0.15)
    axes.set(xlabel=xlabel, ylabel=f"accuracy (%), {split}, n = {count},\n95 % intervals")
    axes.xaxis.set_major_formatter(_number_text)
    axes.xaxis.set_minor_formatter(_minor_formatter(max(xs) / min(xs)))
    # In line with the labels at the major ticks, which are longer.
    axes.tick_params(axis="x", which="minor", pad=5)


def _number_text(value: float, _: float) -> str:
    return f"{value:g}"


def _minor_formatter(span: float) -> Callable[[float, float], str]:
    """Return what labels the ticks between powers of ten on an axis whose ends have this ratio.

    So many that they do not overlap: all within a decade, 2 and 5 within two, else none.
    """
    digits: set[int] = set()
    if span < 6:
        digits = {2, 3, 4, 5, 6, 8}
    elif span < 100:
        digits = {2, 5}

    def text(value: float, _: float) -> str:
        mantissa, _exponent = f"{value:e}".split("e")
        # Positions of ticks have rounding errors.
        return f"{value:g}" if round(float(mantissa)) in digits else ""

    return text
