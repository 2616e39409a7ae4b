"""The confusion matrix of an evaluated file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fertool.report.plots.drawing import new_figure
from fertool.report.printable import printable
from fertool.results import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAME_LENGTH = 16
# Black is hard to read on the darker blues above this percentage.
_DARK_PERCENT = 55


def plot_confusion_matrix(entry: Evaluation) -> bytes:
    """Return the confusion matrix of an evaluated file, each row in percent of its true class."""
    names = [printable(name[:_MAX_NAME_LENGTH]) for name in entry.per_class]
    ylabels, percentages = [], []
    for name, counts in zip(names, entry.confusion, strict=True):
        images = sum(counts)
        ylabels.append(f"{name} ({images:,})")
        # A class may have no images.
        percentages.append(_percentages(counts, max(1, images)))
    ticks = range(len(names))
    side = 1.4 + 0.62 * len(names)
    with new_figure(side + 1.6, side) as (figure, png):
        axes = figure.subplots()
        image = axes.imshow(percentages, cmap="Blues", vmin=0, vmax=100)
        _write_percentages(axes, percentages)
        axes.set_xticks(ticks, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, ylabels)
        axes.set(xlabel="answer", ylabel="true class (images)")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, label="% of the true class", shrink=0.8)
        bar.outline.set_visible(False)
    return png.getvalue()


def _percentages(counts: Sequence[int], total: int) -> list[float]:
    return [100 * count / total for count in counts]


def _write_percentages(axes: Axes, percentages: list[list[float]]) -> None:
    for row, of_class in enumerate(percentages):
        for column, percent in enumerate(of_class):
            color = "white" if percent > _DARK_PERCENT else "black"
            text = f"{percent:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=10)
