"""An INT8 graph in the shapes that integer kernels are fast at; its answers stay the same to the bit.

Kernels for channels-last bytes take 16 channels of a depthwise convolution at a time and the rest one by one, which
takes two to three times as long. And they gather the window of a pixel row by row, so that a first layer of one channel
copies two or three bytes at a time. Weights keep their stored form: runtimes rearrange them once, when they load the
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnx.helper import get_attribute_value, make_attribute, make_node

LANES = 16
"""Channels that a depthwise kernel takes at a time: the bytes of an SSE or NEON register."""
_FEW_CHANNELS = 4
_KEEP_CHANNELS = {
    *("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "HardSigmoid", "HardSwish", "Sigmoid", "Mul"),
    *("GlobalAveragePool", "AveragePool", "MaxPool"),
}


def arranged(model: ModelProto) -> ModelProto:
    """Return the same INT8 computation with whole registers of depthwise channels, and blocks of pixels as channels.

    The channels of a depthwise convolution are filled up with zeros to a multiple of 16, where nothing but
    convolutions and what keeps channels apart touches them. A first layer of stride 2 reads blocks of 2 x 2 pixels as
    channels, with a kernel of half the side. What is not integer stays as it is.
    """
    graph = _Graph(model)
    for node in graph.nodes:
        if node.op_type == "Conv" and graph.integers(node):
            _read_blocks(graph, node)
            _fill_up(graph, node)
    return graph.finished()


class _Graph:
    """A graph whose nodes can be looked up by the values that they make and read, and take others before them."""

    def __init__(self, model: ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self.nodes = list(graph.node)
        self.inputs = {value.name for value in graph.input}
        self.made_by = {output: node for node in self.nodes for output in node.output}
        self.read_by: dict[str, list[NodeProto]] = {value.name: [] for value in graph.output}
        for node in self.nodes:
            for value in node.input:
                self.read_by.setdefault(value, []).append(node)
        known = onnx.shape_inference.infer_shapes(model).graph
        self.shapes = {
            value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
            for value in (*known.input, *known.value_info)
        }
        self.shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self._before: dict[str, list[NodeProto]] = {}
        self._count = 0

    def integers(self, conv: NodeProto) -> list[NodeProto]:
        """Return the DequantizeLinear of the weight, and of the bias, of an integer convolution; none of a float one."""
        sources = [self.made_by[value] for value in conv.input if value in self.made_by]
        integer = len(sources) == len(conv.input) and all(node.op_type == "DequantizeLinear" for node in sources)
        return sources[1:] if integer else []

    def insert(self, reader: NodeProto, op_type: str, *constants: Sequence[int], at: int = 0, **attributes: Any) -> None:
        """Put a node before `reader` that works on its input number `at`."""
        names = [self._constant(values) for values in constants]
        node = make_node(op_type, [reader.input[at], *names], [self._fresh_name()], **attributes)
        self._before.setdefault(reader.output[0], []).append(node)
        reader.input[at] = node.output[0]

    def finished(self) -> ModelProto:
        """Return the model with all that was inserted."""
        nodes = [new for node in self.nodes for new in (*self._before.get(node.output[0], ()), node)]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._model.graph.node[:]
        self._model.graph.node.extend(copies)
        return self._model

    def _constant(self, values: Sequence[int]) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(values, np.int64), self._fresh_name())
        self._model.graph.initializer.append(tensor)
        return tensor.name

    def _fresh_name(self) -> str:
        self._count += 1
        return f"layout/{self._count}"


def _fill_up(graph: _Graph, depthwise: NodeProto) -> None:
    channels = graph.shapes[depthwise.input[0]][1]
    missing = -channels % LANES
    convolutions = _sharing_channels(graph, depthwise) if missing and _is_depthwise(graph, depthwise) else None
    for conv, makes, reads in convolutions or ():
        weight, *bias = graph.integers(conv)
        if reads and not _is_depthwise(graph, conv):
            graph.insert(weight, "Pad", [0] * 5 + [missing, 0, 0])
        if makes:
            graph.insert(weight, "Pad", [0] * 4 + [missing, 0, 0, 0])
        for source in (weight, *bias) if makes else ():
            graph.insert(source, "Pad", [0, missing], at=1, mode="edge")
        for source in bias if makes else ():
            graph.insert(source, "Pad", [0, missing])
        if reads and makes:
            _set(conv, "group", channels + missing)


def _sharing_channels(graph: _Graph, start: NodeProto) -> list[tuple[NodeProto, bool, bool]] | None:
    """Return the convolutions that share the channels of a depthwise one, and whether each makes and reads them.

    None where something else touches these channels.
    """
    found: dict[str, tuple[NodeProto, bool, bool]] = {}
    seen: set[str] = set()
    todo = [start.input[0]]
    while todo:
        value = todo.pop()
        if value in seen:
            continue
        seen.add(value)
        if value not in graph.made_by or not graph.read_by.get(value):
            return None
        for node in (graph.made_by[value], *graph.read_by[value]):
            if node.op_type in _KEEP_CHANNELS:
                todo += [*node.input[: 2 if node.op_type == "Mul" else 1], node.output[0]]
            elif node.op_type == "Conv" and graph.integers(node) and _is_depthwise(graph, node):
                found[node.output[0]] = node, True, True
                todo += [node.input[0], node.output[0]]
            elif node.op_type == "Conv" and graph.integers(node) and _attribute(node, "group", 1) == 1:
                found[node.output[0]] = node, value == node.output[0], value == node.input[0]
            else:
                return None
    return list(found.values())


def _is_depthwise(graph: _Graph, conv: NodeProto) -> bool:
    (_, channels, *_), weight = (graph.shapes.get(value, [0, 0]) for value in conv.input[:2])
    return 1 < channels == _attribute(conv, "group", 1) == weight[0]


def _read_blocks(graph: _Graph, conv: NodeProto) -> None:
    """Let the first layer read 2 x 2 pixels as channels: row 2i + d of the image is row d of block i."""
    images = graph.made_by[conv.input[0]]
    kernel, pads = (list(_attribute(conv, name, [])) for name in ("kernel_shape", "pads"))
    pixels = graph.shapes.get(images.input[0], [])
    fits = len(pixels) == 4 and pixels[1] <= _FEW_CHANNELS and pixels[2] % 2 == pixels[3] % 2 == 0
    square = len({*kernel}) == 1 and {*pads} == {kernel[0] // 2} and kernel[0] % 2 == 1
    plain = _attribute(conv, "group", 1) == 1 and {*_attribute(conv, "dilations", [1])} == {1}
    if images.input[0] not in graph.inputs or not (fits and square and plain):
        return
    if list(_attribute(conv, "strides", [1])) != [2, 2] or len(graph.read_by[images.output[0]]) > 1:
        return
    _, channels, height, width = pixels
    pad, weight = kernel[0] // 2, graph.integers(conv)[0]
    first, last = -(-pad // 2), pad // 2  # blocks before and behind the one of the output's own pixel
    blocks = first + 1 + last
    rows = [2 * first - pad, 2 * blocks - kernel[0] - (2 * first - pad)]
    graph.insert(images, "Reshape", [-1, channels, height // 2, 2, width // 2, 2])
    # Channels last, since that is what runtimes make of the transpose that follows.
    graph.insert(images, "Transpose", perm=[0, 2, 4, 1, 3, 5])
    graph.insert(images, "Reshape", [-1, height // 2, width // 2, 4 * channels])
    graph.insert(images, "Transpose", perm=[0, 3, 1, 2])
    graph.insert(weight, "Pad", [0, 0, rows[0], rows[0], 0, 0, rows[1], rows[1]])
    graph.insert(weight, "Reshape", [-1, channels, blocks, 2, blocks, 2])
    graph.insert(weight, "Transpose", perm=[0, 1, 3, 5, 2, 4])
    graph.insert(weight, "Reshape", [-1, 4 * channels, blocks, blocks])
    changed = {"kernel_shape": [blocks] * 2, "pads": [first] * 2 + [last] * 2, "strides": [1, 1]}
    for name, value in changed.items():
        _set(conv, name, value)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _set(node: NodeProto, name: str, value: Any) -> None:
    others = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, make_attribute(name, value)])
