"""An ONNX file before its nodes are converted: what it has, what is needed, what rules it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fertool.errors import FertoolError, unknown_name
from fertool.graph.ir import MAX_NODES
from fertool.graph.network import ImageShape
from fertool.graph.onnx_builder import (
    CONVERTERS,
    Constant,
    UnsupportedNodeError,
    shortest_float,
)
from fertool.graph.onnx_constant_folding import can_fold
from fertool.graph.operator_types import MAX_SIZE
from fertool.graph.operators import UNSUPPORTED_HINT
from fertool.strict_json import shown

_MIN_OPSET = 7
_QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_DEFAULT_DOMAINS = ("", "ai.onnx")
_CONSTANT_ATTRIBUTES: Mapping[str, type[np.generic]] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""Attributes of a `Constant` beside a whole tensor, with the types that they have."""


@dataclass(frozen=True)
class ImageInput:
    """The file's input for images.

    `element_type` is ONNX's number of a type; `sizes` has four axes, None for those left open.
    """

    name: str
    element_type: int
    sizes: tuple[int | None, ...]
    channels_last: bool

    @property
    def batch(self) -> int | None:
        """The number of images that the file was exported for."""
        return self.sizes[0]

    @property
    def image(self) -> tuple[int | None, int | None, int | None]:
        """Channels, height and width."""
        if self.channels_last:
            _, height, width, channels = self.sizes
        else:
            _, channels, height, width = self.sizes
        return channels, height, width


@dataclass
class OnnxFile:
    """A checked file: its nodes that are needed, and its initializers, decoded on first use."""

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    opset: int
    weights: Mapping[str, onnx.TensorProto]
    needed: set[str] = field(default_factory=set)
    decoded: dict[str, Constant] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: onnx.ModelProto) -> OnnxFile:
        """Return a file; raises FertoolError for what can be refused without reading the nodes."""
        graph = model.graph
        opset = _opset_of(model)
        if opset < _MIN_OPSET:
            raise FertoolError(
                f"the ONNX file has opset {opset}, the oldest that can be imported is {_MIN_OPSET}",
                "export it again, or convert it with onnx.version_converter",
            )
        if len(graph.node) > MAX_NODES:
            raise FertoolError(
                f"the ONNX file has {len(graph.node):,} nodes, more than {MAX_NODES:,}",
                "export less",
            )
        if model.functions or graph.sparse_initializer:
            what = "functions of its own" if model.functions else "sparse weights"
            raise FertoolError(
                f"the ONNX file has {what}", "export it without, or inline them with onnx.inliner"
            )

        _require_text(graph)
        weights = {tensor.name: tensor for tensor in graph.initializer}
        for tensor in weights.values():
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                raise FertoolError(
                    f"the weight {shown(tensor.name)} of the ONNX file is stored in another file",
                    "save the model in one file",
                )
        return cls(model, list(graph.node), opset, weights)

    @property
    def weight_elements(self) -> int:
        """An upper bound of the float32 numbers of all weights, by the bytes that they take."""
        return sum(int(tensor.ByteSize()) for tensor in self.weights.values()) // 4

    def keep_needed_nodes(self, output: str, outputs: tuple[str, ...]) -> None:
        """Keep the nodes on which a value depends.

        Raises FertoolError for operators among them that cannot be imported.
        """
        makers: dict[str, onnx.NodeProto] = {}
        for node in self.nodes:
            makers.update(dict.fromkeys(node.output, node))
        # Optional results that nothing uses have no name.
        makers.pop("", None)
        if output not in makers:
            raise unknown_name("output of the ONNX file", output, outputs)

        pending = [output]
        while pending:
            name = pending.pop()
            if name in self.needed:
                continue
            self.needed.add(name)
            # Optional inputs that are not given have an empty name, which no node makes.
            if name in makers:
                pending += makers[name].input
        self.nodes = [node for node in self.nodes if self.needed.intersection(node.output)]

        # Integers first: a quantized file has other unknown operators, which are not the reason.
        for node in self.nodes:
            _require_float_operator(node)
        for node in self.nodes:
            _require_known_operator(node)

    def image_input(self) -> ImageInput:
        """Return the input for images; raises FertoolError unless exactly one input is needed."""
        value = self._only_needed_input()
        tensor = value.type.tensor_type
        sizes: list[int | None] = []
        for dim in tensor.shape.dim:
            is_fixed = dim.HasField("dim_value") and dim.dim_value > 0
            size = None
            if is_fixed:
                size = dim.dim_value
            sizes.append(size)

        accepted = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
        if len(sizes) != 4 or tensor.elem_type not in accepted:
            element_type = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            raise FertoolError(
                f"the input {shown(value.name)} has {len(sizes)} axes of the type {element_type}",
                "images are [batch, channels, height, width] of float32, or of uint8",
            )
        channels_last = sizes[3] in (1, 3) and sizes[1] not in (1, 3)
        return ImageInput(value.name, tensor.elem_type, tuple(sizes), channels_last)

    def _only_needed_input(self) -> Any:
        # Older files list their weights among the inputs.
        used: list[Any] = []
        for value in self.model.graph.input:
            if value.name in self.needed and value.name not in self.weights:
                used.append(value)
        if len(used) == 1:
            return used[0]

        message = "the output depends on no input"
        if used:
            names = ", ".join(value.name for value in used)
            message = f"the graph reads {len(used)} inputs ({names})"
        raise FertoolError(message, "a network for classification reads images and nothing else")

    def constant(self, name: str) -> Constant | None:
        """Return an initializer, None if there is none of this name."""
        if name not in self.decoded and name in self.weights:
            try:
                array = numpy_helper.to_array(self.weights[name])
            except (ValueError, TypeError, KeyError) as error:
                reason = str(error).partition("\n")[0]
                raise FertoolError(
                    f"the weight {shown(name)} is damaged ({reason})", "export it again"
                ) from None
            self.decoded[name] = Constant(array, name)
        return self.decoded.get(name)


def _opset_of(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in _DEFAULT_DOMAINS]
    # A file without any is of the time before there were opsets.
    return max(versions, default=1)


def _require_text(graph: onnx.GraphProto) -> None:
    """Raise FertoolError for names that are not text: protobuf has bytes for damaged ones."""
    if not all(isinstance(name, str) for name in _all_names(graph)):
        raise FertoolError(
            "the ONNX file has a name that is not text", "export or copy the file again"
        )


def _all_names(graph: onnx.GraphProto) -> Iterator[object]:
    for named in (*graph.initializer, *graph.input, *graph.output):
        yield named.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain)
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            yield attribute.name


def _qualified_op(node: onnx.NodeProto) -> str:
    if node.domain in _DEFAULT_DOMAINS:
        return node.op_type
    return f"{node.domain}.{node.op_type}"


def _require_float_operator(node: onnx.NodeProto) -> None:
    """Raise FertoolError for an operator of a quantized network."""
    op = _qualified_op(node)
    if op in _QUANTIZED or "QLinear" in op or "Integer" in op:
        raise quantized_error(node)


def _require_known_operator(node: onnx.NodeProto) -> None:
    """Raise FertoolError for an operator that cannot be imported."""
    op = _qualified_op(node)
    if op in _CONTROL_FLOW:
        raise FertoolError(
            f"the operator '{op}' (node {shown(node.name)}) decides at run time what is computed, "
            "so the graph cannot be imported",
            "export a network that computes the same for every image",
        )
    if op not in CONVERTERS and op != "Constant" and not can_fold(op):
        raise FertoolError(
            f"the ONNX operator {shown(op)} (node {shown(node.name)}) is not known, "
            "so the graph cannot be imported",
            UNSUPPORTED_HINT,
        )


def quantized_error(node: onnx.NodeProto) -> FertoolError:
    """Return the error for a file with integers in place of real numbers."""
    return FertoolError(
        f"the ONNX file is quantized ({node.op_type}, node {shown(node.name)})",
        "import the float model; fertool quantizes it",
    )


def resolve_image_shape(input: ImageInput, given: ImageShape | None) -> ImageShape:
    """Return channels, height and width, as the file has them or as they are given."""
    own = input.image
    if given is not None:
        _require_compatible(own, given)
        own = given
    channels, height, width = own
    if channels is None or height is None or width is None:
        raise FertoolError(
            "the ONNX file leaves the shape of its images open",
            "give the size of the images: channels, height, width",
        )
    sizes = (channels, height, width)
    if min(sizes) < 1 or max(sizes) > MAX_SIZE:
        raise FertoolError(
            f"images of {channels} x {height} x {width}", "export the network for smaller images"
        )
    return channels, height, width


def _require_compatible(own: tuple[int | None, ...], given: ImageShape) -> None:
    if all(size in (None, wanted) for size, wanted in zip(own, given, strict=True)):
        return
    raise FertoolError(
        f"the file takes images of {_format_shape(own)} (channels, height, width), "
        f"not {_format_shape(given)}",
        "give the size that the file was exported for",
    )


def _format_shape(sizes: Sequence[int | None]) -> str:
    texts: list[str] = []
    for size in sizes:
        # The file may leave a size open.
        texts.append("?" if size is None else str(size))
    return " x ".join(texts)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as Python's values; tensors and graphs stay as they are."""
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError:
            name = shown(attribute.name)
            raise UnsupportedNodeError(f"its attribute {name} has no value") from None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, float):
            value = shortest_float(value)
        attributes[attribute.name] = value
    return attributes


def constant_of(attributes: Mapping[str, Any]) -> Constant:
    """Return the value of a `Constant`, given its attributes.

    Raises UnsupportedNodeError where it has none.
    """
    if "value" in attributes:
        try:
            return Constant(numpy_helper.to_array(attributes["value"]))
        except (ValueError, TypeError, KeyError) as error:
            raise UnsupportedNodeError(f"its value is damaged ({error})") from None
    for name, dtype in _CONSTANT_ATTRIBUTES.items():
        if name in attributes:
            return Constant(np.array(attributes[name], dtype))
    raise UnsupportedNodeError("a constant of a kind that is not known")
