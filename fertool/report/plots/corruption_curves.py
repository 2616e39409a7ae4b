"""Accuracy of files under corruptions of the images, a panel for each corruption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

from msgspec import UNSET

from fertool.report.plots.drawing import (
    COLORS,
    GRID_COLOR,
    MARKERS,
    PNG,
    FigureFormat,
    new_figure,
)
from fertool.report.printable import printable
from fertool.report.units import short_file_names
from fertool.results import Corruptions, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 13
"""Inches of four panels side by side."""
_PANEL_HEIGHT = 2.6
# The program has eight; a file that somebody wrote may have any number.
_MAX_PANELS = 16


def plot_corruptions(entries: Sequence[Evaluation], format: FigureFormat = PNG) -> bytes:
    """Return the accuracy by strength, a panel for each corruption and a color for each file.

    A dashed line is the accuracy on the clean images.
    """
    kinds: dict[str, str] = {}
    for entry in entries:
        if entry.corruptions is not UNSET:
            for name, figures in entry.corruptions.by_name.items():
                kinds[name] = figures.unit
    kinds = dict(islice(kinds.items(), _MAX_PANELS))
    columns = min(len(kinds), 2 if format.max_width < _WIDTH else 4)
    rows = -(-len(kinds) // columns)
    width = _WIDTH * max(columns, 2) / 4
    with new_figure(width, _PANEL_HEIGHT * rows + 0.6, format) as (figure, drawn):
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for panel, (name, unit) in zip(panels, kinds.items(), strict=False):
            _draw_panel(panel, name, unit, entries)
        for panel in panels[len(kinds) :]:
            panel.set_visible(False)
        for row in range(rows):
            panels[row * columns].set_ylabel("accuracy (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            frameon=False,
            ncols=min(len(labels), format.legend_columns),
        )
    return format.finish(drawn)


def _draw_panel(panel: Axes, name: str, unit: str, entries: Sequence[Evaluation]) -> None:
    names = short_file_names(entries)
    styles = zip(cycle(COLORS), cycle(MARKERS), strict=False)
    for entry, (color, marker) in zip(entries, styles, strict=False):
        if entry.corruptions is UNSET:
            continue
        strengths, accuracies = _points(entry.corruptions, name)
        if not strengths:
            continue
        label = printable(names[entry.file])
        # By level and not by strength: those of a resolution fall while they get harder.
        places = range(1, len(strengths) + 1)
        panel.axhline(100 * entry.accuracy, color=color, linestyle="dashed", linewidth=0.8)
        panel.plot(places, accuracies, marker=marker, markersize=4, color=color, label=label)
        panel.set_xticks(list(places), [f"{strength:g}" for strength in strengths])
    panel.set_title(printable(name), fontsize=10)
    panel.set_xlabel(printable(unit), fontsize=9)
    panel.grid(color=GRID_COLOR)


def _points(found: Corruptions, name: str) -> tuple[list[float], list[float]]:
    """Return the strengths of a corruption and the accuracies (%) there, none if not measured."""
    strengths: list[float] = []
    accuracies: list[float] = []
    if name in found.by_name:
        for level in found.by_name[name].levels:
            strengths.append(level.strength)
            accuracies.append(100 * level.accuracy)
    return strengths, accuracies
