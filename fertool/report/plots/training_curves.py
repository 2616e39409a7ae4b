"""Loss and accuracy over the epochs of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

from fertool.report.plots.drawing import COLORS, GRID_COLOR, new_figure, values_of
from fertool.report.printable import printable
from fertool.report.text_table import Data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More curves could not be told apart, and each takes a line of the legend.
_MAX_CURVES = 50


def plot_training_curves(histories: Mapping[str, Sequence[Data]]) -> bytes:
    """Return loss and validation accuracy by epoch, one color a model.

    The best epoch has a mark. Each record has `epoch`, `train_loss`, `val_loss` and `val_accuracy`
    (a fraction). Of very many histories only the first are drawn.
    """
    shown = islice(histories.items(), _MAX_CURVES)
    with new_figure(10, 4) as (figure, png):
        losses, accuracies = figure.subplots(1, 2)
        for (name, history), color in zip(shown, cycle(COLORS), strict=False):
            _plot_losses(losses, name, history, color)
            _plot_accuracy(accuracies, name, history, color)
        losses.set(xlabel="epoch", ylabel="loss")
        accuracies.set(xlabel="epoch", ylabel="validation accuracy (%)")
        for axes in (losses, accuracies):
            axes.grid(color=GRID_COLOR)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend(frameon=False, fontsize=9)
    return png.getvalue()


def _plot_losses(axes: Axes, name: str, history: Sequence[Data], color: str) -> None:
    epochs = values_of(history, "epoch")
    train_losses, val_losses = values_of(history, "train_loss"), values_of(history, "val_loss")
    axes.plot(epochs, train_losses, linestyle="dashed", color=color, label=f"{name}, train")
    axes.plot(epochs, val_losses, color=color, label=f"{name}, validation")


def _plot_accuracy(axes: Axes, name: str, history: Sequence[Data], color: str) -> None:
    epochs = values_of(history, "epoch")
    accuracies = values_of(history, "val_accuracy", factor=100)
    best = accuracies.index(max(accuracies))
    axes.plot(epochs, accuracies, color=color, label=f"{name}, best {accuracies[best]:.1f} %")
    axes.plot(epochs[best], accuracies[best], "o", color=color)


def split_rounds(name: str, history: Sequence[Data]) -> dict[str, list[Data]]:
    """Return a history as curves by name: one, or one for each round of which it has records."""
    name = printable(name)
    curves: dict[str, list[Data]] = {}
    for record in history:
        curve = name
        if "round" in record:
            curve += f", round {record['round']}"
        curves.setdefault(curve, []).append(record)
    return curves
