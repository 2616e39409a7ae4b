"""Accuracy over the options of a sweep (OUT.grid.json, OUT.seeds.json)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal

from fertool.report.plots.drawing import COLORS, GRID_COLOR, MARKERS, PNG, FigureFormat, new_figure
from fertool.report.plots.training_curves import plot_training_curves, split_rounds
from fertool.report.printable import printable
from fertool.report.units import value_text
from fertool.results import ConfigSummary, Epoch, SweepResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Value = bool | int | float | str
_MAX_VALUE_LENGTH = 40
_LINES_WIDTH = 7.5
"""Inches of lines with their legend beside them."""
# Points of two lines at the same value stand so far apart that both intervals can be seen.
_LINE_SHIFT = 0.04


def plot_sweep(sweep: SweepResults, format: FigureFormat = PNG) -> bytes:
    """Return what a sweep found.

    Two options make a heat map, other numbers of options lines over the option with the most
    values, with the standard deviation of several seeds or the 95 % interval of one; seeds alone
    their training curves.
    """
    if not sweep.axes:
        return _plot_seeds(sweep, format)
    if len(sweep.axes) == 2:
        return _plot_heat_map(sweep, format)
    return _plot_option_lines(sweep, format)


def _plot_seeds(sweep: SweepResults, format: FigureFormat) -> bytes:
    curves: dict[str, list[Epoch]] = {}
    for trial in sorted(sweep.rows, key=lambda trial: trial.seed):
        curves.update(split_rounds(f"seed {trial.seed}", trial.history))
    return plot_training_curves(curves, format)


def _plot_heat_map(sweep: SweepResults, format: FigureFormat) -> bytes:
    (row_option, row_values), (column_option, column_values) = sweep.axes.items()
    points, means = {}, []
    for point in sweep.points:
        options = point.options
        points[options[row_option], options[column_option]] = point
        means.append(100 * point.accuracy_mean)
    low, high = min(means), max(means)

    width, height = 2.6 + 1.0 * len(column_values), 1.6 + 0.7 * len(row_values)
    with new_figure(width, height, format) as (figure, drawn):
        axes = figure.subplots()
        cells = _mean_cells(points, row_values, column_values)
        # A range of one value would have no colors.
        image = axes.imshow(cells, cmap="Blues", vmin=low, vmax=high + 1e-9, aspect="auto")
        for row, row_value in enumerate(row_values):
            for column, column_value in enumerate(column_values):
                cell = points.get((row_value, column_value))
                if cell is not None:
                    is_dark = 100 * cell.accuracy_mean > (low + high) / 2
                    # Points are sorted, the best first.
                    is_best = cell is sweep.points[0]
                    _write_point(axes, (column, row), cell, is_dark, is_best)

        axes.set_xticks(range(len(column_values)), _tick_texts(column_values))
        axes.set_yticks(range(len(row_values)), _tick_texts(row_values))
        axes.set(xlabel=printable(column_option), ylabel=printable(row_option))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, label=_accuracy_label(sweep))
        bar.outline.set_visible(False)
    return format.finish(drawn)


def _mean_cells(
    points: Mapping[tuple[_Value, _Value], ConfigSummary],
    row_values: Sequence[_Value],
    column_values: Sequence[_Value],
) -> list[list[float]]:
    """Return the mean accuracy of each combination in percent, NaN where there is none yet."""
    cells = []
    for row_value in row_values:
        row = []
        for column_value in column_values:
            point = points.get((row_value, column_value))
            row.append(100 * point.accuracy_mean if point else float("nan"))
        cells.append(row)
    return cells


def _write_point(
    axes: Axes, position: tuple[int, int], point: ConfigSummary, is_dark: bool, is_best: bool
) -> None:
    """Write mean and deviation of a combination into its cell of a heat map."""
    text = f"{100 * point.accuracy_mean:.1f}"
    if point.accuracy_sd is not None:
        text += f"\n± {100 * point.accuracy_sd:.1f}"
    color = "white" if is_dark else "black"
    weight = "bold" if is_best else "normal"
    axes.text(*position, text, ha="center", va="center", color=color, weight=weight)


def _plot_option_lines(sweep: SweepResults, format: FigureFormat) -> bytes:
    """Draw accuracy over one option, a line for each combination of the others."""
    option = _longest_option(sweep.axes)
    values = list(sweep.axes[option])
    if _is_numeric(values):
        values.sort()
    lines = _split_lines(sweep.points, option, values)

    with new_figure(_LINES_WIDTH, 4.5, format) as (figure, drawn):
        axes = figure.subplots()
        styles = zip(cycle(COLORS), cycle(MARKERS), strict=False)
        for index, ((name, points), style) in enumerate(zip(lines.items(), styles, strict=False)):
            shift = _LINE_SHIFT * (index - (len(lines) - 1) / 2)
            xs = []
            for point in points:
                xs.append(values.index(point.options[option]) + shift)
            _plot_line(axes, xs, points, name, style)
        axes.set_xticks(range(len(values)), _tick_texts(values))
        axes.set(xlabel=printable(option), ylabel=_accuracy_label(sweep))
        axes.grid(axis="y", color=GRID_COLOR)
        axes.margins(x=0.1)
        if len(lines) > 1:
            handles, labels = axes.get_legend_handles_labels()
            is_narrow = format.max_width < _LINES_WIDTH
            place: Literal["outside upper left", "outside right upper"] = "outside right upper"
            if is_narrow:
                place = "outside upper left"
            figure.legend(handles, labels, loc=place, frameon=False, fontsize=9)
    return format.finish(drawn)


def _longest_option(options: Mapping[str, Sequence[_Value]]) -> str:
    """Return the option with the most values, a numeric one if there is any."""
    return max(options, key=lambda name: (_is_numeric(options[name]), len(options[name])))


def _split_lines(
    points: Sequence[ConfigSummary], option: str, values: Sequence[_Value]
) -> dict[str, list[ConfigSummary]]:
    """Return the points by their other options, in the order of the values of this one."""
    lines: dict[str, list[ConfigSummary]] = {}
    for point in sorted(points, key=lambda point: values.index(point.options[option])):
        others = []
        for name, value in point.options.items():
            if name != option:
                others.append(f"{printable(name)} {_tick_text(value)}")
        lines.setdefault(", ".join(others), []).append(point)
    # By name: the order of the points depends on which is the best.
    return dict(sorted(lines.items()))


def _plot_line(
    axes: Axes,
    xs: Sequence[float],
    points: Sequence[ConfigSummary],
    name: str,
    style: tuple[str, str],
) -> None:
    color, marker = style
    means, below, above = [], [], []
    for point in points:
        means.append(100 * point.accuracy_mean)
        lower, upper = _spread(point)
        below.append(lower)
        above.append(upper)
    axes.errorbar(
        xs,
        means,
        yerr=[below, above],
        fmt=f"{marker}-",
        color=color,
        capsize=3,
        elinewidth=1,
        label=name,
    )


def _spread(point: ConfigSummary) -> tuple[float, float]:
    """Return how far a bar reaches below and above a mean, in points of percent."""
    deviation = point.accuracy_sd
    if deviation is not None:
        return 100 * deviation, 100 * deviation
    # A single seed has an interval in its place.
    assert point.accuracy_ci95 is not None
    low, high = point.accuracy_ci95
    mean = point.accuracy_mean
    # An interval in a file may lie beside its mean, which Matplotlib would refuse.
    return 100 * max(0.0, mean - low), 100 * max(0.0, high - mean)


def _accuracy_label(sweep: SweepResults) -> str:
    """Return the label of the accuracy: split, images, and what the bars are."""
    first = sweep.rows[0]
    lines = [f"accuracy (%), {printable(first.split)}, n = {first.n:,}"]
    seeds = len(sweep.seeds)
    if seeds > 1:
        lines.append(f"mean ± sd of {seeds} seeds")
    # A heat map of one seed has no bars.
    elif len(sweep.axes) != 2:
        lines.append("95 % intervals")
    return "\n".join(lines)


def _tick_texts(values: Sequence[_Value]) -> list[str]:
    return [_tick_text(value) for value in values]


def _tick_text(value: _Value) -> str:
    return printable(value_text(value)[:_MAX_VALUE_LENGTH])


def _is_numeric(values: Sequence[Any]) -> bool:
    # A bool is an int, too.
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
