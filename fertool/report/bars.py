"""Bars of a network's layers as PNG bytes: how wide they are, and of how many bits."""

from __future__ import annotations

from collections.abc import Sequence

from fertool.report.canvas import COLOURS, blank_figure
from fertool.report.plain import plain
from fertool.spec import WEIGHT_BITS

FLOAT_BITS = 32
"""What stands for the bits of a layer that stays in float."""
_MOST_BARS = 60
_BIT_COLOURS = ("#440154", "#443A83", "#31688E", "#21908C", "#35B779", "#8FD744", "#FDE725")
"""Viridis, from the fewest bits to the most."""


def width_bars(groups: Sequence[tuple[str, int, int]]) -> bytes:
    """Return bars of the channels of each group (name, before, after) of a pruned network, from the top in that order.

    Of very many groups only those that lose most channels are shown.
    """
    if len(groups) > _MOST_BARS:
        lost = sorted(range(len(groups)), key=lambda index: groups[index][2] - groups[index][1])
        groups = [groups[index] for index in sorted(lost[:_MOST_BARS])]
    with blank_figure(8, 1.4 + 0.24 * len(groups)) as (figure, png):
        axes = figure.subplots()
        rows = range(len(groups))
        axes.barh(rows, [before for _, before, _ in groups], color="#D0D7DE", label="before")
        axes.barh(
            rows, [after for _, _, after in groups], color=COLOURS[0], height=0.5, label="after"
        )
        axes.set_yticks(rows, [plain(name) for name, _, _ in groups], fontsize=8)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set(xlabel="channels")
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
        )
    return png.getvalue()


def bit_bars(layers: Sequence[tuple[str, Sequence[int]]]) -> bytes:
    """Return a bar for each layer (name, bits of its channels) of a quantised network: the shares of each width.

    Layers stand from the top in the order given; `FLOAT_BITS` are shown as float.
    """
    colours = {**dict(zip(WEIGHT_BITS, _BIT_COLOURS, strict=True)), FLOAT_BITS: "#D0D7DE"}
    with blank_figure(8, 1.4 + 0.24 * len(layers)) as (figure, png):
        axes = figure.subplots()
        rows, start = range(len(layers)), [0.0] * len(layers)
        for width in colours:
            shares = [100 * bits.count(width) / len(bits) for _, bits in layers]
            if any(shares):
                axes.barh(rows, shares, left=start, color=colours[width], label=_bits_text(width))
                start = [before + share for before, share in zip(start, shares, strict=True)]
        axes.set_yticks(rows, [plain(name) for name, _ in layers], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0, y=0.01)
        axes.set(xlabel="channels of the layer, %")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper right",
            ncols=len(labels),
            frameon=False,
            title="bits",
        )
    return png.getvalue()


def _bits_text(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else str(bits)
