"""Seconds of single kernels of ONNX Runtime, with floats and with integers.

A kernel is timed in chains of it: the difference of a long and a short chain, by their shortest
runs, has neither the cost of a run nor the changes of layout at its ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from fertool.onnx_runtime import open_session, session_options

_SUBJECT = "a kernel to be timed"
_OPSET = 18
_SHORT, _LONG = 1, 5
_MIN_RUNS, _MAX_RUNS = 10, 200
_SECONDS = 0.05
"""How long each chain is run: enough for a run without interruptions."""
_LEAST_S = 1e-8


class _Chain:
    """An ONNX graph under construction; values are quantized where it `is_integer`."""

    def __init__(self, is_integer: bool) -> None:
        self.is_integer = is_integer
        self.integers = ""
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._random = np.random.default_rng(0)
        self._count = 0

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its result."""
        output = self._name()
        self.nodes.append(make_node(op_type, list(inputs), [output], **attributes))
        return output

    def constant(self, values: NDArray[Any] | np.generic) -> str:
        """Return the name of a new constant."""
        name = self._name()
        self.tensors.append(from_array(np.asarray(values), name))
        return name

    def rounded(self, value: str) -> str:
        """Return a value behind a quantizer, or itself in a chain of floats."""
        if not self.is_integer:
            return value
        scale = self.constant(np.float32(0.05))
        zero_point = self.constant(np.uint8(128))
        self.integers = self.node("QuantizeLinear", value, scale, zero_point)
        return self.node("DequantizeLinear", self.integers, scale, zero_point)

    def weight(self, *shape: int, axis: int = 0) -> str:
        """Return a random weight."""
        if not self.is_integer:
            values = self._random.standard_normal(shape).astype(np.float32)
            return self.constant(values * 0.05)
        integers = self._random.integers(-63, 64, shape).astype(np.int8)
        scales = self.constant(np.full(shape[0], 1e-3, np.float32))
        zero_points = self.constant(np.zeros(shape[0], np.int8))
        return self.node(
            "DequantizeLinear", self.constant(integers), scales, zero_points, axis=axis
        )

    def bias(self, count: int) -> str:
        """Return a bias, of integers in units of the scales above."""
        if not self.is_integer:
            return self.constant(np.zeros(count, np.float32))
        scales = self.constant(np.full(count, np.float32(0.05) * np.float32(1e-3)))
        return self.node(
            "DequantizeLinear", self.constant(np.zeros(count, np.int32)), scales, axis=0
        )

    def conv(
        self,
        value: str,
        inputs: int,
        outputs: int,
        kernel: int,
        groups: int = 1,
        activation: str = "Relu",
    ) -> str:
        """Return a convolution that keeps the size of the map."""
        weight = self.weight(outputs, inputs // groups, kernel, kernel)
        pads = [kernel // 2] * 4
        bias = self.bias(outputs)
        found = self.node("Conv", value, weight, bias, pads=pads, group=groups)
        # The quantizer clips; floats have the activation that layers have, in the same kernel.
        return self.rounded(found if self.is_integer else self.node(activation, found))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        """Return a linear layer."""
        weight = self.weight(outputs, inputs)
        return self.rounded(self.node("Gemm", value, weight, self.bias(outputs), transB=1))

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"


Link = Callable[[_Chain, str, Sequence[int]], str]


def _convolution(kernel: int) -> Link:
    def link(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
        inputs, outputs, _ = sizes
        return chain.conv(chain.conv(value, inputs, outputs, kernel), outputs, inputs, kernel)

    return link


def _depthwise(kernel: int) -> Link:
    def link(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
        return chain.conv(value, sizes[0], sizes[0], kernel, groups=sizes[0])

    return link


def _linear(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    inputs, outputs = sizes
    return chain.linear(chain.linear(value, inputs, outputs), outputs, inputs)


def _sum(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    return chain.rounded(chain.node("Add", value, value))


def _function(op_type: str, **attributes: Any) -> Link:
    def link(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
        return chain.rounded(chain.node(op_type, value, **attributes))

    return link


def _hard_swish(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    """Return a convolution with a HardSwish, of integers as `fertool export` writes it."""
    channels = sizes[0]
    if not chain.is_integer:
        return chain.conv(value, channels, channels, 1, activation="HardSwish")
    found = chain.conv(value, channels, channels, 1)
    low, high = (chain.constant(np.uint8(bound)) for bound in (0, 254))
    clipped = chain.node("Clip", chain.integers, low, high)
    scale = chain.constant(np.float32(0.05 / 6))
    gate = chain.node("DequantizeLinear", clipped, scale, chain.constant(np.uint8(0)))
    return chain.rounded(chain.node("Mul", found, gate))


def _gated(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    gate = chain.rounded(chain.node("GlobalAveragePool", value))
    return chain.rounded(chain.node("Mul", value, gate))


def _product(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    return chain.rounded(chain.node("Mul", value, value))


def _round_trip(chain: _Chain, value: str, sizes: Sequence[int]) -> str:
    """Return a layer on integers and two on floats: what they take is subtracted.

    Two, since ONNX Runtime makes integers of a single one between rounded values.
    """
    channels = sizes[0]
    first = chain.conv(value, channels, channels, 3, groups=channels)
    was_integer, chain.is_integer = chain.is_integer, False
    second = chain.conv(first, channels, channels, 3, groups=channels)
    third = chain.conv(second, channels, channels, 3, groups=channels)
    chain.is_integer = was_integer
    return chain.rounded(third)


# The links of chains by kind, and how many kernels of the kind one link has.
_LINKS: dict[str, tuple[Link, int]] = {
    "conv1": (_convolution(1), 2),
    "conv3": (_convolution(3), 2),
    "conv5": (_convolution(5), 2),
    "depthwise3": (_depthwise(3), 1),
    "depthwise5": (_depthwise(5), 1),
    "linear": (_linear, 2),
    "add": (_sum, 1),
    "mul": (_product, 1),
    "gated": (_gated, 1),
    "hardswish": (_hard_swish, 1),
    "sigmoid": (_function("Sigmoid"), 1),
    "max_pool": (_function("MaxPool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 1),
    "average_pool": (_function("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 1),
}
KINDS = (*_LINKS, "boundary")


def time_kernel(kind: str, sizes: Sequence[int]) -> tuple[float, float]:
    """Return the seconds of a kernel with floats and with integers, on one thread.

    `sizes` are input and output channels and the side of the map of a dense convolution, input and
    output features of a linear layer, channels and side of the others. Of a "boundary" both are the
    seconds from floats to integers or back, with the changes of layout: half of a round trip.
    """
    if kind == "boundary":
        trip = _time_link(_round_trip, sizes, is_integer=True)
        # Of all layers these take the least beside what is asked for.
        floats_s, integers_s = time_kernel("depthwise3", sizes)
        boundary = max(_LEAST_S, (trip - 2 * floats_s - integers_s) / 2)
        return boundary, boundary
    link, count = _LINKS[kind]
    floats_s = _time_link(link, sizes, is_integer=False) / count
    integers_s = _time_link(link, sizes, is_integer=True) / count
    if kind == "hardswish":
        # What is asked for is the function alone.
        conv_floats_s, conv_integers_s = time_kernel("conv1", (sizes[0], *sizes))
        floats_s = max(_LEAST_S, floats_s - conv_floats_s)
        integers_s = max(_LEAST_S, integers_s - conv_integers_s)
    return floats_s, integers_s


def _time_link(link: Link, sizes: Sequence[int], is_integer: bool) -> float:
    short = _fastest_run(_make_chain(link, sizes, is_integer, _SHORT))
    long = _fastest_run(_make_chain(link, sizes, is_integer, _LONG))
    return max(_LEAST_S, (long - short) / (_LONG - _SHORT))


def _make_chain(link: Link, sizes: Sequence[int], is_integer: bool, length: int) -> bytes:
    shape = [1, sizes[0]]
    if link is not _linear:
        shape += [sizes[-1], sizes[-1]]
    chain = _Chain(is_integer)
    value = chain.rounded("images")
    if len(shape) == 4:
        # The layout of a convolution's result, in which the others have kernels of their own.
        value = chain.conv(value, sizes[0], sizes[0], 1)
    for _ in range(length):
        value = link(chain, value, sizes)
    chain.nodes.append(make_node("Identity", [value], ["result"]))
    graph = make_graph(
        chain.nodes,
        "chain",
        [make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [make_tensor_value_info("result", TensorProto.FLOAT, None)],
        chain.tensors,
    )
    model = make_model(graph, opset_imports=[make_opsetid("", _OPSET)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def _fastest_run(content: bytes) -> float:
    """Return the seconds of the fastest of many runs: others have interruptions in them."""
    session = open_session(content, session_options(threads=1), _SUBJECT)
    (images,) = session.get_inputs()
    values = np.random.default_rng(0).standard_normal(images.shape).astype(np.float32)
    feed = {images.name: values}
    fastest = float("inf")
    end = time.perf_counter() + _SECONDS
    runs = 0
    while runs < _MIN_RUNS or (time.perf_counter() < end and runs < _MAX_RUNS):
        start = time.perf_counter()
        session.run(None, feed)
        fastest = min(fastest, time.perf_counter() - start)
        runs += 1
    return fastest
