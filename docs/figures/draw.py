"""Draw fake-quantization.svg and bit-allocation.svg, the figures that need computing."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
BLUE, ORANGE, GRAY = "#3f51b5", "#e67e22", "#888888"
BITS = np.arange(2, 9)


def main() -> None:
    """Write both pictures; the same bytes each time."""
    mpl.rcParams.update({"svg.hashsalt": "fertool", "svg.fonttype": "none", "font.size": 10})
    draw_fake_quantization()
    draw_bit_allocation()


def draw_fake_quantization() -> None:
    """The forward pass is a staircase, the backward pass a straight line within the range."""
    figure, (forward, backward) = plt.subplots(1, 2, figsize=(7.5, 2.8))
    values = np.linspace(-1, 4.5, 1000)
    scale, largest = 0.5, 7
    rounded = scale * np.clip(np.round(values / scale), 0, largest)
    forward.plot(values, values, color=GRAY, linewidth=1, linestyle="--", label="float")
    forward.plot(values, rounded, color=BLUE, label="fake quantized")
    forward.set(title="forward: scale * clip(round(x / scale))", xlabel="x", ylabel="y")
    forward.legend(frameon=False)
    inside = (values >= 0) & (values <= scale * largest)
    backward.plot(values, inside.astype(float), color=ORANGE)
    backward.set(title="backward: dy/dx", xlabel="x", ylim=(-0.1, 1.3), yticks=(0, 1))
    _save(figure, "fake-quantization.svg")


def draw_bit_allocation() -> None:
    """The loss of three channels by bits, and the order in which bits are given."""
    generator = np.random.default_rng(0)
    figure, (losses, order) = plt.subplots(1, 2, figsize=(7.5, 2.9))
    steps = []
    for channel, (trace, color) in enumerate(((20.0, BLUE), (4.0, ORANGE), (0.4, GRAY))):
        weights = generator.normal(size=200)
        loss = np.array([trace * _squared_error(weights, int(bits)) for bits in BITS])
        losses.semilogy(BITS, loss, "o-", color=color, label=f"trace {trace:g}")
        for bits, saving in zip(BITS[1:], loss[:-1] - loss[1:], strict=True):
            steps.append((saving, channel, int(bits), color))
    losses.set(title="loss of a channel", xlabel="bits")
    losses.legend(frameon=False)
    steps.sort(reverse=True)
    for position, (saving, _, bits, color) in enumerate(steps[:10], start=1):
        order.bar(position, saving, color=color, log=True)
        order.text(position, saving * 1.2, f"→ {bits}", ha="center", fontsize=8)
    order.set(title="steps, largest saving first", xlabel="step", xticks=range(1, 11))
    _save(figure, "bit-allocation.svg")


def _squared_error(weights: np.ndarray, bits: int) -> float:
    """Return the mean squared error of rounding to `bits` bits with the best of many scales."""
    largest = 2 ** (bits - 1) - 1
    errors = []
    for limit in np.linspace(0.3, 1, 30) * np.abs(weights).max():
        scale = limit / largest
        rounded = scale * np.clip(np.round(weights / scale), -largest, largest)
        errors.append(np.mean((weights - rounded) ** 2))
    return float(min(errors))


def _save(figure: Figure, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FOLDER / name, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
