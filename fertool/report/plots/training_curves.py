"""Loss and accuracy over the epochs of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

from msgspec import UNSET

from fertool.report.plots.drawing import COLORS, GRID_COLOR, PNG, FigureFormat, new_figure
from fertool.report.printable import printable
from fertool.results import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More curves could not be told apart, and each takes a line of the legend.
_MAX_CURVES = 50
_WIDTH = 10
"""Inches of both panels side by side."""


def plot_training_curves(
    histories: Mapping[str, Sequence[Epoch]], format: FigureFormat = PNG
) -> bytes:
    """Return loss and validation accuracy by epoch, one color a model.

    The best epoch has a mark. Of very many histories only the first are drawn.
    """
    shown = islice(histories.items(), _MAX_CURVES)
    is_narrow = format.max_width < _WIDTH
    rows, columns, height = (2, 1, 7) if is_narrow else (1, 2, 4)
    with new_figure(_WIDTH, height, format) as (figure, drawn):
        losses, accuracies = figure.subplots(rows, columns)
        for (name, history), color in zip(shown, cycle(COLORS), strict=False):
            _plot_losses(losses, name, history, color)
            _plot_accuracy(accuracies, name, history, color)
        losses.set(xlabel="epoch", ylabel="loss")
        accuracies.set(xlabel="epoch", ylabel="validation accuracy (%)")
        for axes in (losses, accuracies):
            axes.grid(color=GRID_COLOR)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False, fontsize=9)
    return format.finish(drawn)


def _plot_losses(axes: Axes, name: str, history: Sequence[Epoch], color: str) -> None:
    epochs, train_losses, val_losses = [], [], []
    for record in history:
        epochs.append(record.epoch)
        train_losses.append(record.train_loss)
        val_losses.append(record.val_loss)
    axes.plot(epochs, train_losses, linestyle="dashed", color=color, label=f"{name}, train")
    axes.plot(epochs, val_losses, color=color, label=f"{name}, validation")


def _plot_accuracy(axes: Axes, name: str, history: Sequence[Epoch], color: str) -> None:
    epochs, accuracies = [], []
    for record in history:
        epochs.append(record.epoch)
        accuracies.append(100 * record.val_accuracy)
    best = accuracies.index(max(accuracies))
    axes.plot(epochs, accuracies, color=color, label=f"{name}, best {accuracies[best]:.1f} %")
    axes.plot(epochs[best], accuracies[best], "o", color=color)


def split_rounds(name: str, history: Sequence[Epoch]) -> dict[str, list[Epoch]]:
    """Return a history as curves by name: one, or one for each round of which it has records."""
    name = printable(name)
    curves: dict[str, list[Epoch]] = {}
    for record in history:
        curve = name
        if record.round is not UNSET:
            curve += f", round {record.round}"
        curves.setdefault(curve, []).append(record)
    return curves
