"""The figure of `hessian-sensitivity`: traces of every layer and channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fertool.report.plots.drawing import COLORS, GRID_COLOR, PNG, FigureFormat, new_figure
from fertool.report.printable import printable
from fertool.report.units import hessian_text
from fertool.results import Sensitivity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STRIP_WIDTH = 0.8
"""Of the distance between two layers."""


def plot_sensitivity(sensitivity: Sensitivity, format: FigureFormat = PNG) -> bytes:
    """Return the Hessian traces: for each layer a strip of its channels, in order, and a mean.

    On a log scale: traces below 0 are drawn at their absolute value in a color of their own, those
    of 0 not at all.
    """
    layers = sensitivity.layers
    of_weights, of_activations, names = [], [], []
    for layer in layers:
        of_weights.append(layer.weight_trace)
        of_activations.append(layer.activation_trace)
        names.append(printable(layer.name))
    traces = {"weights": of_weights}
    # Files of older versions have none, and a layer may lack them.
    if any(of_activations):
        traces["activations"] = of_activations

    width = min(13.5, 4 + 0.3 * len(layers))
    height = 2 + 2.8 * len(traces)
    with new_figure(width, height, format) as (figure, drawn):
        panels = list(figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0])
        loss = hessian_text(sensitivity.hessian)
        for axes, (kind, by_layer) in zip(panels, traces.items(), strict=True):
            _plot_traces(axes, by_layer)
            ylabel = f"Hessian trace by {kind}\n({loss}, nats)"
            axes.set(yscale="log", ylabel=ylabel)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.grid(axis="y", color=GRID_COLOR)
            axes.set_axisbelow(True)
            axes.margins(x=0.01)

        # Of more layers than have room every second one has its name, and so on; rounded up.
        step = -(-len(layers) // format.names_that_fit)
        ticks = range(0, len(layers), step)
        size = format.small_font
        panels[-1].set_xticks(ticks, names[::step], rotation=90, fontsize=size)
        panels[-1].set(xlabel="layer, its channels from left to right")
        _add_legend(figure, panels, columns=1 if format.max_width < width else 4)
    return format.finish(drawn)


def _add_legend(figure: Figure, panels: Sequence[Axes], columns: int) -> None:
    """Add one legend for all panels, each label once."""
    handles_by_label: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        handles_by_label.update(zip(labels, handles, strict=True))
    figure.legend(
        list(handles_by_label.values()),
        list(handles_by_label),
        loc="outside upper right",
        ncols=min(columns, len(handles_by_label)),
        frameon=False,
        fontsize=9,
    )


def _plot_traces(axes: Axes, traces: Sequence[Sequence[float]]) -> None:
    """Draw dots for the channels of each layer, and a line at their mean."""
    _plot_traces_of_sign(axes, traces, sign=1, colors=(COLORS[5], COLORS[0]), suffix="")
    negative_colors = (COLORS[4], COLORS[1])
    _plot_traces_of_sign(axes, traces, -1, colors=negative_colors, suffix=" below 0, its size")


def _plot_traces_of_sign(
    axes: Axes,
    traces: Sequence[Sequence[float]],
    sign: int,
    colors: tuple[str, str],
    suffix: str,
) -> None:
    """Draw the traces above 0 or below it; `colors` are those of channels and of means."""
    channel_color, mean_color = colors
    xs, ys = [], []
    left, right, means = [], [], []
    for index, strip in enumerate(traces):
        for channel, value in enumerate(strip):
            if sign * value > 0:
                position = (channel + 0.5) / len(strip) - 0.5
                xs.append(index + _STRIP_WIDTH * position)
                ys.append(sign * value)
        if strip and sign * sum(strip) > 0:
            left.append(index - _STRIP_WIDTH / 2)
            right.append(index + _STRIP_WIDTH / 2)
            means.append(sign * sum(strip) / len(strip))

    if xs:
        label = f"channel{suffix}"
        axes.plot(xs, ys, ".", color=channel_color, markersize=3, alpha=0.6, label=label)
    if means:
        label = f"mean of a layer{suffix}"
        axes.hlines(means, left, right, color=mean_color, linewidth=2, label=label)
