"""An INT8 graph in the shapes that integer kernels are fast at, with the same logits to the bit.

Kernels for channels-last bytes take 16 channels of a depthwise convolution at a time and the rest
one by one, which takes two to three times as long. And they copy the window of a pixel row by row:
of a first layer of one channel three bytes at a time, which takes three to five times as long as
with four; and a product with one gate per channel works pixel by pixel. Weights keep their stored
form: runtimes rearrange them once, when they load the file.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from fertool.exporting.graph_editor import GraphEditor, get_attribute, set_attribute

DEPTHWISE_CHANNELS = 16
"""Channels that a depthwise kernel takes at a time: the bytes of an SSE or NEON register."""
BLOCK_PIXELS = 4
"""Pixels of a row that are computed together, at least."""

# What a first layer should compute at once: four pixels suffice for most, and eight are faster
# where it has few channels.
_MIN_BLOCK_OUTPUTS = 64
# Below this size of a map, in pixels, moving its bytes takes longer than the faster product saves.
_MIN_GATED_PIXELS = 1024
_TO_CHANNELS_LAST = [0, 2, 3, 1]
_TO_CHANNELS_SECOND = [0, 3, 1, 2]
_CHANNELWISE_OPERATORS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "Relu",
    "Clip",
    "HardSigmoid",
    "HardSwish",
    "Sigmoid",
    "Mul",
    "GlobalAveragePool",
    "AveragePool",
    "MaxPool",
}
"""Operators whose every output channel depends on the same input channel alone."""


def arrange_for_kernels(model: ModelProto) -> ModelProto:
    """Return the same INT8 computation with whole registers of channels, and blocks of pixels.

    The channels of a depthwise convolution are padded with zeros to a multiple of 16, where nothing
    but convolutions and channelwise operators read or compute them. A first layer of one channel
    reads several pixels of a row as channels, and a gate multiplies four at once. Layers that are
    not integer stay as they are.
    """
    graph = GraphEditor(model)
    for node in graph.nodes:
        if _is_integer_convolution(graph, node):
            _read_pixel_blocks(graph, node)
            _pad_depthwise_channels(graph, node)
    for node in graph.nodes:
        if node.op_type == "Mul":
            _multiply_pixel_blocks(graph, node)
    return graph.finish()


def _is_integer_convolution(graph: GraphEditor, node: NodeProto) -> bool:
    return node.op_type == "Conv" and bool(graph.integer_parameters(node))


def _is_depthwise(graph: GraphEditor, convolution: NodeProto) -> bool:
    groups = get_attribute(convolution, "group", default=1)
    weight_shape = graph.shapes.get(convolution.input[1], [])
    return groups > 1 and weight_shape[:2] == [groups, 1]


@dataclass(frozen=True)
class _ChannelUse:
    """A convolution, and whether it computes and whether it reads the channels in question."""

    convolution: NodeProto
    computes: bool
    reads: bool


def _pad_depthwise_channels(graph: GraphEditor, depthwise: NodeProto) -> None:
    channels = get_attribute(depthwise, "group", default=1)
    missing = -channels % DEPTHWISE_CHANNELS
    if not missing or not _is_depthwise(graph, depthwise):
        return
    for use in _find_channel_uses(graph, depthwise):
        _pad_parameters(graph, use, missing)
        if _is_depthwise(graph, use.convolution):
            set_attribute(use.convolution, "group", channels + missing)


def _pad_parameters(graph: GraphEditor, use: _ChannelUse, missing: int) -> None:
    """Pad weight and bias of a convolution along the axes of the channels.

    Pads are those before each axis, then those behind each.
    """
    weight, *biases = graph.integer_parameters(use.convolution)
    if use.reads and not _is_depthwise(graph, use.convolution):
        graph.insert_before(weight, 0, "Pad", [0, 0, 0, 0, 0, missing, 0, 0])
    if not use.computes:
        return
    graph.insert_before(weight, 0, "Pad", [0, 0, 0, 0, missing, 0, 0, 0])
    for dequantizer in (weight, *biases):
        # A scale of 0 would be invalid; any other does for channels of zeros.
        graph.insert_before(dequantizer, 1, "Pad", [0, missing], mode="edge")
    for bias in biases:
        graph.insert_before(bias, 0, "Pad", [0, missing])


def _find_channel_uses(graph: GraphEditor, depthwise: NodeProto) -> list[_ChannelUse]:
    """Return the convolutions that compute or read the channels of a depthwise one.

    Nothing where these channels are an input or output of the graph, or another operator reads or
    computes them.
    """
    uses: dict[str, _ChannelUse] = {}
    visited: set[str] = set()
    pending = [depthwise.input[0]]
    while pending:
        value = pending.pop()
        if value in visited:
            continue
        visited.add(value)
        if value not in graph.producers or not graph.readers.get(value):
            return []

        for node in (graph.producers[value], *graph.readers[value]):
            if node.op_type in _CHANNELWISE_OPERATORS:
                pending += _values_of_channels(node)
            elif not _is_integer_convolution(graph, node):
                return []
            elif _is_depthwise(graph, node):
                uses[node.output[0]] = _ChannelUse(node, computes=True, reads=True)
                pending += [node.input[0], node.output[0]]
            elif get_attribute(node, "group", default=1) == 1:
                _add_dense_use(uses, node, value)
            else:
                return []
    return list(uses.values())


def _values_of_channels(node: NodeProto) -> list[str]:
    """Return the values of a channelwise operator that have its channels."""
    # Inputs after these are scales, zero points and bounds.
    data_inputs = 2 if node.op_type == "Mul" else 1
    return [*node.input[:data_inputs], node.output[0]]


def _add_dense_use(uses: dict[str, _ChannelUse], convolution: NodeProto, value: str) -> None:
    """Note that a convolution of one group computes or reads `value`; in a gate one may do both."""
    output = convolution.output[0]
    known = uses.get(output)
    computes = value == output or (known is not None and known.computes)
    reads = value == convolution.input[0] or (known is not None and known.reads)
    uses[output] = _ChannelUse(convolution, computes, reads)


def _multiply_pixel_blocks(graph: GraphEditor, product: NodeProto) -> None:
    """Multiply a large map by its gate of one value per channel, four pixels of a row at once.

    With the channels last, four pixels of a row are one pixel with four times the channels.
    """
    shape = graph.shapes.get(product.output[0], [])
    if len(shape) != 4:
        return
    _, _, height, width = shape
    if height * width < _MIN_GATED_PIXELS or width % BLOCK_PIXELS:
        return
    position = _find_gated_input(graph, product)
    quantizer = _only_reader(graph, product.output[0])
    if position is None or quantizer is None or quantizer.op_type != "QuantizeLinear":
        return

    map_dequantizer = graph.producers[product.input[position]]
    gate_dequantizer = graph.producers[product.input[1 - position]]
    # The bytes are rearranged before they become floats, which are four times as large.
    product.input[position] = map_dequantizer.input[0]
    graph.insert_before(product, position, "Transpose", perm=_TO_CHANNELS_LAST)
    graph.insert_before(product, position, "Reshape", [0, height, width // BLOCK_PIXELS, -1])
    graph.insert_before(product, position, "Transpose", perm=_TO_CHANNELS_SECOND)
    graph.insert_before(product, position, "DequantizeLinear", *map_dequantizer.input[1:])
    unpadded: list[list[int]] = [[]] * BLOCK_PIXELS
    graph.concatenate_before(gate_dequantizer, 0, unpadded, axis=1)
    graph.insert_after(quantizer, "Transpose", perm=_TO_CHANNELS_LAST)
    graph.insert_after(quantizer, "Reshape", [0, height, width, -1])
    graph.insert_after(quantizer, "Transpose", perm=_TO_CHANNELS_SECOND)


def _find_gated_input(graph: GraphEditor, product: NodeProto) -> int | None:
    """Return which input of a product of dequantized values is gated by the other, [N, C, 1, 1].

    None where neither is.
    """
    first, second = product.input
    if not _is_dequantized(graph, first) or not _is_dequantized(graph, second):
        return None
    if _is_gate(graph, second):
        return 0
    if _is_gate(graph, first):
        return 1
    return None


def _is_dequantized(graph: GraphEditor, value: str) -> bool:
    producer = graph.producers.get(value)
    return producer is not None and producer.op_type == "DequantizeLinear"


def _is_gate(graph: GraphEditor, value: str) -> bool:
    # A gate is repeated for the pixels of a block, which any other reader of it would see.
    return graph.shapes.get(value, [])[2:] == [1, 1] and len(graph.readers[value]) == 1


@dataclass(frozen=True)
class _FirstLayer:
    """Stride, kernel and padding of a square convolution of the graph's input."""

    stride: int
    kernel: int
    pad: int


@dataclass(frozen=True)
class _Blocks:
    """How a first layer reads its rows in blocks.

    A block has `pixels` pixels, from which `columns` columns of the result are computed. A window
    of all these columns reaches over `count` blocks, of which `before` begin left of its own.
    """

    pixels: int
    columns: int
    before: int
    count: int


def _read_pixel_blocks(graph: GraphEditor, convolution: NodeProto) -> None:
    """Let the first layer read 4 or 8 pixels of a row as channels, and compute as many columns.

    In bytes with the channels last both are the same arrays in other shapes.
    """
    images = graph.producers[convolution.input[0]]
    quantizer = _find_quantizer(graph, convolution)
    layer = _match_first_layer(graph, images, convolution)
    if quantizer is None or layer is None:
        return
    _, channels, height, width = graph.shapes[convolution.output[0]]
    blocks = _choose_blocks(layer, channels, width)
    _repeat_kernels(graph, convolution, layer, blocks)

    columns = blocks.columns
    rows = layer.stride * height
    graph.insert_before(images, 0, "Reshape", [0, rows, width // columns, blocks.pixels])
    graph.insert_before(images, 0, "Transpose", perm=_TO_CHANNELS_SECOND)
    graph.insert_after(quantizer, "Transpose", perm=_TO_CHANNELS_LAST)
    graph.insert_after(quantizer, "Reshape", [0, height, width, channels])
    graph.insert_after(quantizer, "Transpose", perm=_TO_CHANNELS_SECOND)
    after = blocks.count - 1 - blocks.before
    set_attribute(convolution, "kernel_shape", [layer.kernel, blocks.count])
    set_attribute(convolution, "pads", [layer.pad, blocks.before, layer.pad, after])
    set_attribute(convolution, "strides", [layer.stride, 1])
    # Its channels are no longer those of the second layer, so that padding must not go past it.
    del graph.producers[convolution.output[0]]


def _choose_blocks(layer: _FirstLayer, channels: int, width: int) -> _Blocks:
    """Return the blocks for a first layer whose result has these channels and columns."""
    pixels = BLOCK_PIXELS
    has_few_outputs = channels * BLOCK_PIXELS < layer.stride * _MIN_BLOCK_OUTPUTS
    if has_few_outputs and width * layer.stride % (2 * BLOCK_PIXELS) == 0:
        pixels = 2 * BLOCK_PIXELS
    columns = pixels // layer.stride
    # Rounded up: the padding may end within a block.
    before = -(-layer.pad // pixels)
    last_pixel = (columns - 1) * layer.stride - layer.pad + layer.kernel - 1
    return _Blocks(pixels, columns, before, count=before + 1 + last_pixel // pixels)


def _repeat_kernels(
    graph: GraphEditor, convolution: NodeProto, layer: _FirstLayer, blocks: _Blocks
) -> None:
    """Give a first layer a kernel for each column of a block.

    With stride s and blocks of b pixels, column q of block j of the result begins at pixel
    jb + qs - pad of the row, and its kernel is shifted by that much.
    """
    copies = []
    for column in range(blocks.columns):
        left = blocks.before * blocks.pixels + column * layer.stride - layer.pad
        right = blocks.count * blocks.pixels - layer.kernel - left
        copies.append([0, 0, 0, left, 0, 0, 0, right])
    weight, *biases = graph.integer_parameters(convolution)
    graph.concatenate_before(weight, 0, copies)
    graph.insert_before(weight, 0, "Reshape", [-1, layer.kernel, blocks.count, blocks.pixels])
    graph.insert_before(weight, 0, "Transpose", perm=_TO_CHANNELS_SECOND)
    # Scales and biases are one for each output channel, and repeated as they are.
    unpadded: list[list[int]] = [[]] * blocks.columns
    graph.concatenate_before(weight, 1, unpadded)
    for bias in biases:
        graph.concatenate_before(bias, 0, unpadded)
        graph.concatenate_before(bias, 1, unpadded)


def _match_first_layer(
    graph: GraphEditor, images: NodeProto, convolution: NodeProto
) -> _FirstLayer | None:
    """Return a square convolution of gray pixels whose rows divide into blocks, else None."""
    # Another reader of the images would see them in blocks.
    if images.input[0] not in graph.inputs or len(graph.readers[images.output[0]]) != 1:
        return None
    layer = _square_convolution(convolution)
    if layer is None or BLOCK_PIXELS % layer.stride:
        return None
    _, channels, height, width = graph.shapes[images.input[0]]
    if channels != 1 or width % BLOCK_PIXELS or height % layer.stride:
        return None
    result_shape = graph.shapes.get(convolution.output[0], [])
    if result_shape[2:] != [height // layer.stride, width // layer.stride]:
        return None
    return layer


def _square_convolution(convolution: NodeProto) -> _FirstLayer | None:
    """Return a convolution whose attributes are the same on all sides, and undilated, else None."""
    stride = _common_side(convolution, "strides")
    kernel = _common_side(convolution, "kernel_shape")
    pad = _common_side(convolution, "pads")
    if stride is None or kernel is None or pad is None:
        return None
    if set(get_attribute(convolution, "dilations", default=[1])) != {1}:
        return None
    return _FirstLayer(stride, kernel, pad)


def _common_side(convolution: NodeProto, name: str) -> int | None:
    """Return the value of an attribute that is the same on all sides, else None."""
    sides = set(get_attribute(convolution, name, default=[]))
    return sides.pop() if len(sides) == 1 else None


def _find_quantizer(graph: GraphEditor, convolution: NodeProto) -> NodeProto | None:
    """Return the QuantizeLinear behind a convolution, with nothing but a ReLU or Clip between."""
    reader = _only_reader(graph, convolution.output[0])
    while reader is not None and reader.op_type in ("Relu", "Clip"):
        reader = _only_reader(graph, reader.output[0])
    if reader is None or reader.op_type != "QuantizeLinear":
        return None
    return reader


def _only_reader(graph: GraphEditor, value: str) -> NodeProto | None:
    """Return the node that reads a value, where it is the only one."""
    readers = graph.readers.get(value, [])
    return readers[0] if len(readers) == 1 else None
