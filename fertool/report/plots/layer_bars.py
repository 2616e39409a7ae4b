"""Bars of a network's layers: how many channels they have, and of how many bits."""

from __future__ import annotations

from collections.abc import Sequence

from fertool.report.plots.drawing import BEFORE_COLOR, COLORS, PNG, FigureFormat, new_figure
from fertool.report.printable import printable
from fertool.spec import WEIGHT_BITS

FLOAT_BITS = 32
"""What stands for the bits of a layer that stays in float."""

_MAX_BARS = 60
_BIT_COLORS = ("#440154", "#443A83", "#31688E", "#21908C", "#35B779", "#8FD744", "#FDE725")
"""Viridis, from the fewest bits to the most."""

_Group = tuple[str, int, int]
_LayerBits = tuple[str, Sequence[int]]


def plot_channels(groups: Sequence[_Group], format: FigureFormat = PNG) -> bytes:
    """Return bars of the channels of each group (name, before, after) of a pruned network.

    Groups stand from the top in the order given. Of very many only those that lose most channels
    are shown.
    """
    groups = _most_pruned(groups)
    names, before, after = [], [], []
    for name, channels_before, channels_after in groups:
        names.append(printable(name))
        before.append(channels_before)
        after.append(channels_after)

    with new_figure(8, 1.4 + 0.24 * len(groups), format) as (figure, drawn):
        axes = figure.subplots()
        rows = range(len(groups))
        axes.barh(rows, before, color=BEFORE_COLOR, label="before")
        axes.barh(rows, after, color=COLORS[0], height=0.5, label="after")
        axes.set_yticks(rows, names, fontsize=format.small_font)
        # Rows count from the bottom.
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set(xlabel="channels")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return format.finish(drawn)


def _most_pruned(groups: Sequence[_Group]) -> Sequence[_Group]:
    """Return the groups that lose most channels, as many as fit, in their order."""
    if len(groups) <= _MAX_BARS:
        return groups
    by_loss = sorted(range(len(groups)), key=lambda index: _change(groups[index]))
    return [groups[index] for index in sorted(by_loss[:_MAX_BARS])]


def _change(group: _Group) -> int:
    _, before, after = group
    return after - before


def plot_bits(layers: Sequence[_LayerBits], format: FigureFormat = PNG) -> bytes:
    """Return a bar for each layer (name, bits of its channels) of a quantized network.

    Its parts are the fractions of channels of each number of bits. Layers stand from the top in the
    order given; `FLOAT_BITS` are shown as float.
    """
    colors = dict(zip(WEIGHT_BITS, _BIT_COLORS, strict=True))
    colors[FLOAT_BITS] = BEFORE_COLOR
    with new_figure(8, 1.4 + 0.24 * len(layers), format) as (figure, drawn):
        axes = figure.subplots()
        rows = range(len(layers))
        left = [0.0] * len(layers)
        for bits, color in colors.items():
            parts = _percentages(layers, bits)
            # Bits that no layer has would still be in the legend.
            if any(parts):
                label = "float" if bits == FLOAT_BITS else str(bits)
                axes.barh(rows, parts, left=left, color=color, label=label)
                left = [start + part for start, part in zip(left, parts, strict=True)]

        axes.set_yticks(rows, [printable(name) for name, _ in layers], fontsize=format.small_font)
        axes.invert_yaxis()
        axes.margins(x=0, y=0.01)
        axes.set(xlabel="channels of the layer, %")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper right",
            ncols=min(len(labels), format.legend_columns),
            frameon=False,
            title="bits",
        )
    return format.finish(drawn)


def _percentages(layers: Sequence[_LayerBits], bits: int) -> list[float]:
    """Return how many percent of each layer's channels have so many bits."""
    percentages = []
    for _, of_channels in layers:
        percentages.append(100 * of_channels.count(bits) / len(of_channels))
    return percentages
