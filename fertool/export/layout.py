"""An INT8 graph in the shapes that integer kernels are fast at; its answers stay the same to the bit.

Kernels for channels-last bytes take 16 channels of a depthwise convolution at a time and the rest one by one, which
takes two to three times as long. And they copy the window of a pixel row by row: of a first layer of one channel three
bytes at a time, which takes three to five times as long as with four; and a product with one gate per channel works
pixel by pixel. Weights keep their stored form: runtimes rearrange them once, when they load the file.
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
BLOCK = 4
"""Pixels of a row that are taken together, at least."""
_RESULTS = 64
"""What a first layer should compute at once: then four pixels do for most, and eight are faster where it makes less."""
_MANY_PIXELS = 1024
_CHANNELS_LAST, _CHANNELS_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]
_KEEP_CHANNELS = {
    *(
        "QuantizeLinear",
        "DequantizeLinear",
        "Relu",
        "Clip",
        "HardSigmoid",
        "HardSwish",
        "Sigmoid",
        "Mul",
    ),
    *("GlobalAveragePool", "AveragePool", "MaxPool"),
}


def arranged(model: ModelProto) -> ModelProto:
    """Return the same INT8 computation with whole registers of depthwise channels, and blocks of pixels.

    The channels of a depthwise convolution are filled up with zeros to a multiple of 16, where nothing but
    convolutions and what keeps channels apart touches them. A first layer of one channel reads several pixels of a row
    as channels, and a gate multiplies four at once. What is not integer stays as it is.
    """
    graph = _Graph(model)
    for node in graph.nodes:
        if node.op_type == "Conv" and graph.integers(node):
            _read_blocks(graph, node)
            _fill_up(graph, node)
    for node in graph.nodes:
        if node.op_type == "Mul":
            _gate_rows(graph, node)
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
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}
        self._count = 0

    def integers(self, conv: NodeProto) -> list[NodeProto]:
        """Return the DequantizeLinear of weight and bias of an integer convolution, nothing of a float one."""
        sources = [self.made_by[value] for value in conv.input if value in self.made_by]
        integer = len(sources) == len(conv.input) and all(
            node.op_type == "DequantizeLinear" for node in sources
        )
        return sources[1:] if integer else []

    def before(
        self,
        reader: NodeProto,
        at: int,
        op_type: str,
        *others: str | Sequence[int],
        **attributes: Any,
    ) -> None:
        """Put a node before `reader` that works on its input number `at`, and on `others`: values or constants."""
        names = [other if isinstance(other, str) else self._constant(other) for other in others]
        self._feed(
            reader,
            at,
            make_node(op_type, [reader.input[at], *names], [self._fresh_name()], **attributes),
        )

    def concatenate_before(
        self, reader: NodeProto, at: int, copies: Sequence[Sequence[int]], axis: int = 0
    ) -> None:
        """Let `reader` read as many copies of its input number `at`, along an axis, each padded as given."""
        source, parts = reader.input[at], []
        for pads in copies:
            reader.input[at] = source
            if any(pads):
                self.before(reader, at, "Pad", pads)
            parts.append(reader.input[at])
        self._feed(reader, at, make_node("Concat", parts, [self._fresh_name()], axis=axis))

    def after(
        self, maker: NodeProto, op_type: str, *constants: Sequence[int], **attributes: Any
    ) -> None:
        """Put a node behind `maker` that works on its result."""
        names = [self._constant(values) for values in constants]
        later = self._after.setdefault(id(maker), [])
        last = later[-1] if later else maker
        value, last.output[0] = last.output[0], self._fresh_name()
        later.append(make_node(op_type, [last.output[0], *names], [value], **attributes))

    def finished(self) -> ModelProto:
        """Return the model with all that was put in."""
        nodes = [
            new
            for node in self.nodes
            for new in (*self._before.get(id(node), ()), node, *self._after.get(id(node), ()))
        ]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._model.graph.node[:]
        self._model.graph.node.extend(copies)
        return self._model

    def _feed(self, reader: NodeProto, at: int, node: NodeProto) -> None:
        self._before.setdefault(id(reader), []).append(node)
        reader.input[at] = node.output[0]

    def _constant(self, values: Sequence[int]) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(values, np.int64), self._fresh_name())
        self._model.graph.initializer.append(tensor)
        return tensor.name

    def _fresh_name(self) -> str:
        self._count += 1
        return f"layout/{self._count}"


def _fill_up(graph: _Graph, depthwise: NodeProto) -> None:
    channels = _attribute(depthwise, "group", 1)
    missing = -channels % LANES
    convolutions = (
        _sharing_channels(graph, depthwise) if missing and _is_depthwise(graph, depthwise) else None
    )
    for conv, makes, reads in convolutions or ():
        weight, *bias = graph.integers(conv)
        if reads and not _is_depthwise(graph, conv):
            graph.before(weight, 0, "Pad", [0] * 5 + [missing, 0, 0])
        if makes:
            graph.before(weight, 0, "Pad", [0] * 4 + [missing, 0, 0, 0])
        for source in (weight, *bias) if makes else ():
            graph.before(source, 1, "Pad", [0, missing], mode="edge")
        for source in bias if makes else ():
            graph.before(source, 0, "Pad", [0, missing])
        if _is_depthwise(graph, conv):
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
            elif (
                node.op_type == "Conv"
                and graph.integers(node)
                and _attribute(node, "group", 1) == 1
            ):
                _, makes, reads = found.get(node.output[0], (node, False, False))
                found[node.output[0]] = (
                    node,
                    makes or value == node.output[0],
                    reads or value == node.input[0],
                )
            else:
                return None
    return list(found.values())


def _is_depthwise(graph: _Graph, conv: NodeProto) -> bool:
    groups, weight = _attribute(conv, "group", 1), graph.shapes.get(conv.input[1], [])
    return groups > 1 and weight[:2] == [groups, 1]


def _gate_rows(graph: _Graph, product: NodeProto) -> None:
    """Multiply a large map by its gate of one value per channel for four pixels of a row at once."""
    result = graph.shapes.get(product.output[0], [])
    sources = [graph.made_by.get(value) for value in product.input]
    roundings = graph.read_by.get(product.output[0], [])
    if len(result) != 4 or result[2] * result[3] < _MANY_PIXELS or result[3] % BLOCK:
        return
    for at, (source, other) in enumerate(zip(sources, reversed(sources), strict=True)):
        if (
            source is None
            or other is None
            or {source.op_type, other.op_type} != {"DequantizeLinear"}
        ):
            return
        if (
            graph.shapes.get(product.input[1 - at], [])[2:] != [1, 1]
            or len(graph.read_by[product.input[1 - at]]) > 1
        ):
            continue
        if [node.op_type for node in roundings] != ["QuantizeLinear"]:
            return
        product.input[at] = source.input[0]
        graph.before(product, at, "Transpose", perm=_CHANNELS_LAST)
        graph.before(product, at, "Reshape", [0, result[2], result[3] // BLOCK, -1])
        graph.before(product, at, "Transpose", perm=_CHANNELS_SECOND)
        graph.before(product, at, "DequantizeLinear", *source.input[1:])
        graph.concatenate_before(other, 0, [[]] * BLOCK, axis=1)
        graph.after(roundings[0], "Transpose", perm=_CHANNELS_LAST)
        graph.after(roundings[0], "Reshape", [0, result[2], result[3], -1])
        graph.after(roundings[0], "Transpose", perm=_CHANNELS_SECOND)
        return


def _read_blocks(graph: _Graph, conv: NodeProto) -> None:
    """Let the first layer read 4 or 8 pixels of a row as channels, and make as many columns of its result at once.

    In bytes with the channels last both are the same arrays in other shapes. With stride s and blocks of b pixels,
    column q of block j of the result begins at pixel jb + qs - pad of the row, and its kernel is shifted by that much.
    """
    images = graph.made_by[conv.input[0]]
    rounding = _rounding(graph, conv)
    stride, kernel, pad = _first_layer(graph, images, conv)
    if rounding is None or not stride:
        return
    _, outputs, height, width = graph.shapes[conv.output[0]]
    wide = outputs * BLOCK < stride * _RESULTS and width * stride % (2 * BLOCK) == 0
    block = 2 * BLOCK if wide else BLOCK
    columns, first = block // stride, -(-pad // block)
    blocks = first + 1 + ((columns - 1) * stride - pad + kernel - 1) // block
    left = [first * block + column * stride - pad for column in range(columns)]
    copies = [[0, 0, 0, start, 0, 0, 0, blocks * block - kernel - start] for start in left]
    weight, *bias = graph.integers(conv)
    graph.concatenate_before(weight, 0, copies)
    graph.before(weight, 0, "Reshape", [-1, kernel, blocks, block])
    graph.before(weight, 0, "Transpose", perm=_CHANNELS_SECOND)
    for source, at in ((weight, 1), *((node, at) for node in bias for at in (0, 1))):
        graph.concatenate_before(source, at, [[]] * columns)
    graph.before(images, 0, "Reshape", [0, stride * height, width // columns, block])
    graph.before(images, 0, "Transpose", perm=_CHANNELS_SECOND)
    graph.after(rounding, "Transpose", perm=_CHANNELS_LAST)
    graph.after(rounding, "Reshape", [0, height, width, outputs])
    graph.after(rounding, "Transpose", perm=_CHANNELS_SECOND)
    _set(conv, "kernel_shape", [kernel, blocks])
    _set(conv, "pads", [pad, first, pad, blocks - 1 - first])
    _set(conv, "strides", [stride, 1])
    del graph.made_by[conv.output[0]]  # its channels are no longer those of the second layer


def _first_layer(graph: _Graph, images: NodeProto, conv: NodeProto) -> tuple[int, int, int]:
    """Return stride, kernel and padding of a square convolution of grey pixels that divides into blocks, else zeros."""
    pixels, result = (graph.shapes.get(value, []) for value in (images.input[0], conv.output[0]))
    sides = [{*_attribute(conv, name, [])} for name in ("strides", "kernel_shape", "pads")]
    plain = {*_attribute(conv, "dilations", [1])} == {1} and len(
        graph.read_by[images.output[0]]
    ) == 1
    if images.input[0] in graph.inputs and plain and all(len(side) == 1 for side in sides):
        stride, kernel, pad = (side.pop() for side in sides)
        fits = BLOCK % stride == 0 and pixels[3] % BLOCK == 0
        if pixels[1] == 1 and fits and pixels[2:] == [stride * side for side in result[2:]]:
            return stride, kernel, pad
    return 0, 0, 0


def _rounding(graph: _Graph, conv: NodeProto) -> NodeProto | None:
    """Return the QuantizeLinear behind a convolution, with nothing but a ReLU between."""
    readers = graph.read_by[conv.output[0]]
    while len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = graph.read_by[readers[0].output[0]]
    return readers[0] if len(readers) == 1 and readers[0].op_type == "QuantizeLinear" else None


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next(
        (get_attribute_value(entry) for entry in node.attribute if entry.name == name), default
    )


def _set(node: NodeProto, name: str, value: Any) -> None:
    others = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, make_attribute(name, value)])
