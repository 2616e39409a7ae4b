"""An ONNX file before its nodes are read: what is in it, what of it is needed, and what rules it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fertool.errors import FertoolError, unknown_name
from fertool.graph.ir import MAX_NODES
from fertool.graph.network import ImageShape
from fertool.graph.onnx_constants import can_fold
from fertool.graph.onnx_values import READERS, Constant, UnreadableNodeError
from fertool.strict_json import shown

HINT = "see docs/operators.md for what a network may have, and what to write instead of others"
_OLDEST_OPSET = 7
_LARGEST_SIDE = 65_536
_QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear")
_DECIDING = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class Entrance:
    """The file's input for images: its name, its type, its axes (None for those left open), channels last or not."""

    name: str
    kind: int
    sizes: tuple[int | None, ...]
    channels_last: bool

    @property
    def batch(self) -> int | None:
        """The number of images that the file is made for."""
        return self.sizes[0]

    @property
    def image(self) -> tuple[int | None, int | None, int | None]:
        """Channels, height and width."""
        _, a, b, c = self.sizes
        return (c, a, b) if self.channels_last else (a, b, c)


@dataclass
class OnnxFile:
    """A checked file: its nodes that are needed, its initializers, decoded where they are used."""

    model: onnx.ModelProto
    nodes: list[onnx.NodeProto]
    opset: int
    weights: Mapping[str, onnx.TensorProto]
    needed: set[str] = field(default_factory=set)
    decoded: dict[str, Constant] = field(default_factory=dict)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> OnnxFile:
        """Return a file, checked as far as it can be without reading the nodes."""
        graph = model.graph
        opset = max(
            (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
            default=1,
        )
        if opset < _OLDEST_OPSET:
            raise FertoolError(
                f"the ONNX file is written in opset {opset}, the oldest that is read is {_OLDEST_OPSET}",
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
                    f"the weight {shown(tensor.name)} of the ONNX file stands in another file",
                    "save the model in one file",
                )
        return cls(model, list(graph.node), opset, weights)

    @property
    def values(self) -> int:
        """Numbers that the weights may hold, by the bytes that they take."""
        return sum(int(tensor.ByteSize()) for tensor in self.weights.values()) // 4

    def keep_only(self, wanted: str, outputs: tuple[str, ...]) -> None:
        """Keep the nodes on which a value depends; raises FertoolError for what cannot be among them."""
        makers = {name: node for node in self.nodes for name in node.output if name}
        if wanted not in makers:
            raise unknown_name("output of the ONNX file", wanted, outputs)
        waiting = [wanted]
        while waiting:
            name = waiting.pop()
            if name in self.needed:
                continue
            self.needed.add(name)
            if name in makers:
                waiting += [source for source in makers[name].input if source]
        self.nodes = [node for node in self.nodes if self.needed.intersection(node.output)]
        # Integers first: a quantized file has other strange operators, which are not the reason.
        for check in (_require_floats, _require_known):
            for node in self.nodes:
                check(node)

    def entrance(self) -> Entrance:
        """Return the input for images; raises FertoolError unless there is exactly one that is needed."""
        inputs = [value for value in self.model.graph.input if value.name not in self.weights]
        used = [value for value in inputs if value.name in self.needed]
        if len(used) != 1:
            names = ", ".join(value.name for value in used)
            raise FertoolError(
                f"the graph reads {len(used)} inputs ({names})"
                if used
                else "the output depends on no input",
                "a network for classification reads images and nothing else",
            )
        (value,) = used
        tensor = value.type.tensor_type
        sizes = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
            for dim in tensor.shape.dim
        )
        kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)
        if len(sizes) != 4 or tensor.elem_type not in kinds:
            raise FertoolError(
                f"the input {shown(value.name)} has {len(sizes)} axes of the type "
                f"{onnx.TensorProto.DataType.Name(tensor.elem_type).lower()}",
                "images are [batch, channels, height, width] of float32, or of uint8",
            )
        channels_last = sizes[3] in (1, 3) and sizes[1] not in (1, 3)
        return Entrance(value.name, tensor.elem_type, sizes, channels_last)

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


def _require_text(graph: onnx.GraphProto) -> None:
    """Raise FertoolError for names that are no text: protobuf gives those of damaged files as bytes."""
    names: list[object] = [tensor.name for tensor in graph.initializer]
    names += [value.name for value in (*graph.input, *graph.output)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise FertoolError(
            "the ONNX file has a name that is no text", "export or copy the file again"
        )


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _require_floats(node: onnx.NodeProto) -> None:
    """Raise FertoolError for an operator of a quantized network."""
    kind = _kind(node)
    if kind in _QUANTIZED or "QLinear" in kind or "Integer" in kind:
        raise quantized(node)


def _require_known(node: onnx.NodeProto) -> None:
    """Raise FertoolError for an operator that no graph of the table can have."""
    kind = _kind(node)
    if kind in _DECIDING:
        raise FertoolError(
            f"the operator '{kind}' (node {shown(node.name)}) decides at run time what is computed, "
            "so the graph cannot be imported",
            "export a network that computes the same for every image",
        )
    if kind not in READERS and not (can_fold(kind) or kind == "Constant"):
        raise FertoolError(
            f"the ONNX operator {shown(kind)} (node {shown(node.name)}) is not known, so the graph cannot be imported",
            HINT,
        )


def quantized(node: onnx.NodeProto) -> FertoolError:
    """Return the error for a file with integers in the place of its real numbers."""
    return FertoolError(
        f"the ONNX file is quantized ({node.op_type}, node {shown(node.name)})",
        "import the float model; fertool quantizes it",
    )


def image_shape(entrance: Entrance, image: ImageShape | None) -> ImageShape:
    """Return channels, height and width, as the file has them or as they are given."""
    own = entrance.image
    if image is not None and any(a not in (None, b) for a, b in zip(own, image, strict=True)):
        fixed = " x ".join("?" if size is None else str(size) for size in own)
        raise FertoolError(
            f"the file takes images of {fixed} (channels, height, width), not {' x '.join(map(str, image))}",
            "give the size that the file was exported for",
        )
    shape = own if image is None else image
    if any(size is None for size in shape):
        raise FertoolError(
            "the ONNX file leaves the shape of its images open",
            "give the size of the images: channels, height, width",
        )
    channels, height, width = (int(size) for size in shape if size is not None)
    if not all(1 <= size <= _LARGEST_SIDE for size in (channels, height, width)):
        raise FertoolError(
            f"images of {channels} x {height} x {width}", "export the network for smaller images"
        )
    return channels, height, width


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as Python has them, tensors and graphs as they are."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(attribute)
        except ValueError:
            raise UnreadableNodeError(
                f"its attribute {shown(attribute.name)} has no value"
            ) from None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, float):
            # float32, in the fewest digits that tell it: 1e-05 and not 9.999999747378752e-06.
            value = float(str(np.float32(value)))
        found[attribute.name] = value
    return found


def constant_of(attributes: Mapping[str, Any]) -> Constant:
    """Return the value of a `Constant`, given its attributes; raises UnreadableNodeError for one that has none."""
    if "value" in attributes:
        try:
            return Constant(numpy_helper.to_array(attributes["value"]))
        except (ValueError, TypeError, KeyError) as error:
            raise UnreadableNodeError(f"its value is damaged ({error})") from None
    for name, kind in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
    ):
        if name in attributes:
            return Constant(np.array(attributes[name], kind))
    if "value_ints" in attributes:
        return Constant(np.array(attributes["value_ints"], np.int64))
    raise UnreadableNodeError("a constant of a kind that is not known")
