"""The figure of `hessian-sensitivity`: traces of every layer and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fertool.report.canvas import COLOURS, blank_figure
from fertool.report.plain import plain
from fertool.report.units import hessian_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Data = Mapping[str, Any]

_MOST_STRIPS = 60
"""So many layers have their names below them; of more, every second one, and so on."""
_WIDTH = 0.8
"""Of the strip of a layer."""


def sensitivity(found: Data) -> bytes:
    """Return the traces of `hessian-sensitivity --json`: for each layer a strip of its channels, in order, and a mean.

    On a log scale: traces below 0 stand at their size in a colour of their own, those of 0 nowhere.
    """
    layers = found["layers"]
    kinds = [
        kind
        for kind in ("weight", "activation")
        if any(layer.get(f"{kind}_trace") for layer in layers)
    ]
    with blank_figure(min(13.5, 4 + 0.3 * len(layers)), 2 + 2.8 * len(kinds)) as (figure, png):
        panels = figure.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
        for axes, kind in zip(panels, kinds, strict=True):
            _draw_strips(axes, [layer.get(f"{kind}_trace", ()) for layer in layers])
            axes.set(
                yscale="log", ylabel=f"Hessian trace by {kind}s\n({hessian_text(found)}, nats)"
            )
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.grid(axis="y", color="#E5E5E5")
            axes.set_axisbelow(True)
            axes.margins(x=0.01)
        step = -(-len(layers) // _MOST_STRIPS)
        names = [plain(layer["name"]) for layer in layers]
        panels[-1].set_xticks(range(0, len(layers), step), names[::step], rotation=90, fontsize=8)
        panels[-1].set(xlabel="layer, its channels from left to right")
        handles = {
            label: line
            for axes in panels
            for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside upper right",
            ncols=len(handles),
            frameon=False,
            fontsize=9,
        )
    return png.getvalue()


def _draw_strips(axes: Axes, traces: Sequence[Sequence[float]]) -> None:
    """Draw dots for the channels of each layer, and a line at their mean."""
    for sign, colour, dark, said in (
        (1, COLOURS[5], COLOURS[0], ""),
        (-1, COLOURS[4], COLOURS[1], " below 0, its size"),
    ):
        dots = [
            (index + _WIDTH * ((channel + 0.5) / len(strip) - 0.5), sign * value)
            for index, strip in enumerate(traces)
            for channel, value in enumerate(strip)
            if sign * value > 0
        ]
        means = [
            (index, sign * sum(strip) / len(strip)) for index, strip in enumerate(traces) if strip
        ]
        means = [mean for mean in means if mean[1] > 0]
        if dots:
            axes.plot(
                *zip(*dots, strict=True),
                ".",
                color=colour,
                markersize=3,
                alpha=0.6,
                label=f"channel{said}",
            )
        if means:
            xs, ys = zip(*means, strict=True)
            left, right = ([x + side * _WIDTH / 2 for x in xs] for side in (-1, 1))
            axes.hlines(ys, left, right, color=dark, linewidth=2, label=f"mean of a layer{said}")
