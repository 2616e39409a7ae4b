"""Gray conversion and antialiased resizing in front of an ONNX graph, with Pillow's arithmetic.

The graph computes what `Image.convert` and `Image.resize` with Resampling.BILINEAR do: rounded luma
of BT.601, then a triangle filter along the rows and one along the columns, whose weights are
multiples of 2^-22, each rounded to whole gray levels. All sums are of integers below 2^24, which
float32 holds, so that the pixels do not depend on the order in which a runtime adds. Resize
with antialias=1 would be a single operator, but runtimes differ in it.

Pillow 13 filters columns first where a crop is much taller than wide; these pixels may differ from
it by one gray level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import make_node, make_tensor_value_info

from fertool.artifact.contract import BATCH, CROPS, HEIGHT, WIDTH
from fertool.exporting.graph_parts import copy_with_nodes
from fertool.spec import InputSpec, PreprocessingSpec

_LUMA = (19595, 38470, 7471)
"""Weights of red, green and blue, in 2^-16."""
_LOW_BITS = 8
"""Of the 22 bits of a filter weight: with all of them a sum of products would not fit float32."""
_HIGH_BITS = 14
_ROW_AXIS = {"nhwc": 1, "nchw": 2}


def add_preprocessing(
    model: ModelProto, input: InputSpec, preprocessing: PreprocessingSpec
) -> ModelProto:
    """Return a graph that takes crops of any size in place of images of the network's size.

    The input is "crops" uint8 [N, H, W, C] or [N, C, H, W]; "images", the input of `model`, becomes
    a value inside. Gray crops for a network of colors are repeated.
    """
    # Inner graphs read the images by name, too, so that the name has to stay.
    images = model.graph.input[0].name
    nodes = _Nodes(input.size)
    planes = nodes.make_planes(preprocessing, input.channels)
    row_axis = _ROW_AXIS[preprocessing.layout]
    for axis, direction in ((row_axis + 1, "width"), (row_axis, "height")):
        planes = nodes.resize(planes, direction, axis)
    if count_planes(preprocessing, input.channels) < input.channels:
        planes = nodes.add("Concat", [planes] * input.channels, axis=1)
    nodes.add("Cast", [planes], output=images, to=TensorProto.UINT8)

    result = copy_with_nodes(
        model,
        [*nodes.nodes, *model.graph.node],
        [*model.graph.initializer, *nodes.constants],
    )
    shape = [BATCH, HEIGHT, WIDTH, preprocessing.channels]
    if preprocessing.layout == "nchw":
        shape = [BATCH, preprocessing.channels, HEIGHT, WIDTH]
    result.graph.input[0].CopyFrom(make_tensor_value_info(CROPS, TensorProto.UINT8, shape))
    return result


def count_planes(preprocessing: PreprocessingSpec, channels: int) -> int:
    """Return how many planes are resized for a network of so many channels."""
    return min(preprocessing.channels, channels)


class _Nodes:
    """The nodes of the preprocessing for a network of side `size`, in running order."""

    def __init__(self, size: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._size = size
        self._shape = self.add("Shape", [CROPS])

    def add(
        self, op_type: str, operands: Sequence[Any], output: str | None = None, **attributes: Any
    ) -> str:
        """Append a node and return its value; operands are names of values, or constants."""
        inputs = []
        for operand in operands:
            inputs.append(operand if isinstance(operand, str) else self._constant(operand))
        name = output or f"pre/{len(self.nodes)}"
        self.nodes.append(make_node(op_type, inputs, [name], **attributes))
        return name

    def make_planes(self, preprocessing: PreprocessingSpec, channels: int) -> str:
        """Return the crops as float32 [N, C, H, W], gray where the network is."""
        value = CROPS
        if preprocessing.layout == "nhwc":
            value = self.add("Transpose", [value], perm=[0, 3, 1, 2])
        value = self.add("Cast", [value], to=TensorProto.FLOAT)
        if count_planes(preprocessing, channels) == preprocessing.channels:
            return value
        weights = np.array(_LUMA, np.float32).reshape(1, 3, 1, 1)
        weighted = self.add("Mul", [value, weights])
        luma = self.add("ReduceSum", [weighted, np.array([1])], keepdims=1)
        return self._rounded_division(luma, bits=16)

    def resize(self, planes: str, direction: str, axis: int) -> str:
        """Return float32 [N, C, H, W] with another width, or height, rounded to whole levels."""
        weights = self._filter_weights(axis)
        if direction == "width":
            columns = self.add("Transpose", [weights], perm=[1, 0])
            products, split_axis = self.add("MatMul", [planes, columns]), 3
        else:
            products, split_axis = self.add("MatMul", [weights, planes]), 2
        high, low = f"{products}/high", f"{products}/low"
        halves = self._constant(np.array([self._size] * 2))
        self.nodes.append(make_node("Split", [products, halves], [high, low], axis=split_axis))
        carry = self._floor(low, _LOW_BITS)
        return self._rounded_division(self.add("Add", [high, carry]), _HIGH_BITS)

    def _filter_weights(self, axis: int) -> str:
        """Return the weights of one direction, float32 [2 * size, length].

        Rows are the pixels of the result; the first `size` rows have the high bits of the weights,
        the others the low ones. With n pixels becoming S, pixel j weighs in pixel k
        max(0, 1 - |(j + 1/2) S - (k + 1/2) n| / max(n, S)), of the sum over j; twice numerator and
        denominator are integers, in which everything up to the weights is exact.
        """
        size = np.int32(self._size)
        double = np.int32(2 * self._size)
        length = self.add("Gather", [self._shape, np.int64(axis)])
        length = self.add("Cast", [length], to=TensorProto.INT32)
        end = self.add("Mul", [length, double])
        positions = self.add("Range", [size, end, double])
        odd_numbers = 2 * np.arange(self._size, dtype=np.int32)[:, None] + 1
        centers = self.add("Mul", [odd_numbers, length])
        distances = self.add("Abs", [self.add("Sub", [positions, centers])])
        reach = self.add("Mul", [self.add("Max", [length, size]), np.int32(2)])
        rest = self.add("Sub", [reach, distances])
        weights = self.add("Max", [rest, np.int32(0)])
        total = self.add("ReduceSum", [weights, np.array([1])], keepdims=1)

        # In two steps, as in long division: the product with 2^22 would not fit 32 bits. Crops have
        # up to 8,000 pixels a side, above which these products would not fit either.
        scaled = self.add("Mul", [weights, np.int32(2**_HIGH_BITS)])
        high = self.add("Div", [scaled, total])
        remainder = self.add("Sub", [scaled, self.add("Mul", [high, total])])
        scaled_remainder = self.add("Mul", [remainder, np.int32(2**_LOW_BITS)])
        half = self.add("Div", [total, np.int32(2)])
        low = self.add("Div", [self.add("Add", [scaled_remainder, half]), total])
        both = self.add("Concat", [high, low], axis=0)
        return self.add("Cast", [both], to=TensorProto.FLOAT)

    def _rounded_division(self, value: str, bits: int) -> str:
        """Return a value divided by 2^bits, halves rounded up."""
        return self._floor(self.add("Add", [value, np.float32(2 ** (bits - 1))]), bits)

    def _floor(self, value: str, bits: int) -> str:
        return self.add("Floor", [self.add("Mul", [value, np.float32(2.0**-bits)])])

    def _constant(self, value: ArrayLike) -> str:
        tensor = numpy_helper.from_array(np.asarray(value))
        # Equal ones are stored once.
        for known in self.constants:
            named = TensorProto()
            named.CopyFrom(tensor)
            named.name = known.name
            if named == known:
                return known.name
        tensor.name = f"pre/c{len(self.constants)}"
        self.constants.append(tensor)
        return tensor.name
