"""Seconds of the kernels of a network with floats and with integers, from a table.

The table that ships is measured by benchmarks/kernels.py, on one kind of processor. Between its
sizes times are interpolated: their logarithms along the logarithms of the sizes.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from fertool.graph.ir import Node
from fertool.graph.network import Network

Sizes = tuple[int, ...]
Kernel = tuple[str, Sizes]
"""A kind of kernel, and its sizes: see `fertool.runtime.kernel_timing.time_kernel`."""
Row = tuple[Sizes, float, float]
"""Sizes, seconds with floats, seconds with integers."""

_TABLE = "kernel_times.json"
_MICROSECOND = 1e-6
# Kernels of a window have its number of elements between these.
_CONVOLUTIONS = {"conv1": 1, "conv3": 9, "conv5": 25}
_DEPTHWISE = {"depthwise3": 9, "depthwise5": 25}
_KINDS = {
    "add": "add",
    "hardswish": "hardswish",
    "hardsigmoid": "sigmoid",
    "sigmoid": "sigmoid",
    "leaky_relu": "sigmoid",
    "max_pool2d": "max_pool",
    "avg_pool2d": "average_pool",
    "adaptive_avg_pool2d": "gated",
    "mean": "gated",
}
_MOVE_FRACTION = 0.5
"""What moving values takes, as a fraction of adding two maps of them."""

_GATED_PART = 0.5
"""The kernel is a mean of a map and its product with the map: each is half of it."""


@dataclass(frozen=True)
class Seconds:
    """The seconds of one node with floats and with integers."""

    floats: float
    integers: float

    def times(self, factor: float) -> Seconds:
        """Return so many times the seconds."""
        return Seconds(factor * self.floats, factor * self.integers)

    def plus(self, other: Seconds) -> Seconds:
        """Return the seconds of both."""
        return Seconds(self.floats + other.floats, self.integers + other.integers)


@dataclass(frozen=True)
class KernelTimes:
    """Measured kernels by kind, and where they were measured.

    `exact` has those that were measured at the very sizes that are asked for.
    """

    processor: str
    runtime: str
    rows: Mapping[str, Sequence[Row]]
    exact: Mapping[Kernel, Seconds] = field(default_factory=dict)

    def seconds(self, kernel: Kernel) -> Seconds:
        """Return the seconds of a kernel, measured or interpolated."""
        if kernel in self.exact:
            return self.exact[kernel]
        kind, sizes = kernel
        rows = self.rows[kind]
        floats = [(row[0], row[1]) for row in rows]
        integers = [(row[0], row[2]) for row in rows]
        return Seconds(_interpolate(floats, sizes), _interpolate(integers, sizes))


@cache
def shipped_times() -> KernelTimes:
    """Return the table that is part of the package."""
    text = resources.files("fertool.quant").joinpath(_TABLE).read_text(encoding="utf-8")
    data = json.loads(text)
    rows: dict[str, list[Row]] = {}
    for kind, entries in data["kernels"].items():
        rows[kind] = []
        for *sizes, floats_us, integers_us in entries:
            times = (floats_us * _MICROSECOND, integers_us * _MICROSECOND)
            rows[kind].append((tuple(map(int, sizes)), *times))
    return KernelTimes(data["processor"], data["runtime"], rows)


def _interpolate(rows: Sequence[tuple[Sizes, float]], sizes: Sizes) -> float:
    """Return the seconds at these sizes: the first is interpolated, between what the others give.

    The sizes that were measured need not fill a grid: large maps of many channels take too long.
    """
    if not sizes:
        return rows[0][1]
    first, *others = sizes
    values = sorted({row[0][0] for row in rows})
    position = min(max(1, bisect_left(values, first)), max(1, len(values) - 1))
    near = values[position - 1 : position + 1]
    seconds = []
    for value in near:
        inner = [(row[0][1:], row[1]) for row in rows if row[0][0] == value]
        seconds.append(_interpolate(inner, tuple(others)))
    if len(near) == 1:
        return seconds[0] * first / near[0]
    share = math.log(first / near[0]) / math.log(near[1] / near[0])
    # Beyond the table a time neither falls nor grows faster than the square of a size.
    growth = min(max(0.0, math.log(seconds[1] / seconds[0])), 2 * math.log(near[1] / near[0]))
    if 0 <= share <= 1:
        growth = math.log(seconds[1] / seconds[0])
    return seconds[0] * math.exp(share * growth)


def kernels_of(network: Network) -> dict[str, tuple[tuple[Kernel, float], ...]]:
    """Return by node of a folded network the kernels that it runs, and how often each.

    Nodes that are not there run none that is known: those are the same with floats and integers.
    """
    found = {}
    for node in network.graph.nodes:
        kernels = _kernels_of_node(network, node)
        if kernels:
            found[node.name] = kernels
    return found


def boundary_of(network: Network, name: str) -> Kernel:
    """Return the kernel that turns a value of a network into integers or back."""
    channels, side = _map_of(network, name)
    return ("boundary", (channels, side))


def _kernels_of_node(network: Network, node: Node) -> tuple[tuple[Kernel, float], ...]:
    # The parts of a split are rounded where they are taken out; tensors by themselves are read.
    if node.operator.multi_output or not node.inputs:
        return ()
    if node.op == "conv2d":
        return (_convolution(network, node),)
    if node.op == "linear":
        outputs = node.args["out_features"]
        positions = network.values_per_image[node.name] // outputs
        inputs = network.values_per_image[node.inputs[0]] // positions
        return ((("linear", (inputs, outputs)), float(positions)),)
    if node.op == "mul":
        return (_product(network, node),)
    channels, side = _map_of(network, node.inputs[0])
    if node.op == "silu":
        return ((("sigmoid", (channels, side)), 1.0), (("mul", (channels, side)), 1.0))
    kind = _KINDS.get(node.op)
    if kind is not None:
        share = _GATED_PART if kind == "gated" else 1.0
        return (((kind, (channels, side)), share),)
    if node.operator.shares_qparams or node.op == "pad":
        return ((("add", _map_of(network, node.name)), _MOVE_FRACTION),)
    return ()


def _convolution(network: Network, node: Node) -> tuple[Kernel, float]:
    """Return the kernel of a convolution at the size of its result.

    That of the next window below is run more often where it has more elements.
    """
    inputs, _ = _map_of(network, node.inputs[0])
    outputs, side = _map_of(network, node.name)
    height, width = node.args["kernel_size"]
    groups = node.args["groups"]
    if groups == inputs:
        kind, factor = _nearest_window(_DEPTHWISE, height * width)
        return (kind, (outputs, side)), factor
    kind, factor = _nearest_window(_CONVOLUTIONS, height * width)
    # A grouped convolution multiplies as many pairs as one with fewer inputs.
    return (kind, (max(1, inputs // groups), outputs, side)), factor


def _nearest_window(kinds: Mapping[str, int], elements: int) -> tuple[str, float]:
    best = min(kinds, key=lambda kind: abs(math.log(elements / kinds[kind])))
    return best, elements / kinds[best]


def _product(network: Network, node: Node) -> tuple[Kernel, float]:
    """Return the kernel of a product of two maps, or of a map and a gate."""
    counts = [network.values_per_image[name] for name in node.inputs]
    sizes = _map_of(network, node.name)
    if min(counts) == max(counts):
        return ("mul", sizes), 1.0
    return ("gated", sizes), _GATED_PART


def _map_of(network: Network, name: str) -> tuple[int, int]:
    """Return the channels of a value, and the side of a square of as many pixels."""
    values = network.values_per_image[name]
    shape = network.image if name == network.graph.input else network.shapes[name]
    channels = max(1, shape[0])
    return channels, max(1, round(math.sqrt(values / channels)))
