"""Take everything out of an ONNX graph that no runtime reads: in a small INT8 file names and copies are a tenth."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from fertool import __version__

Array = NDArray[Any]

_STEM = "network."
_CONV_DEFAULTS = {"dilations": 1, "pads": 0, "strides": 1}
"""One value per axis, which the schema can say only in words."""


def compacted(model: ModelProto) -> ModelProto:
    """Return the same computation with shared constants, short names and nothing else.

    Equal constants become one. Nodes lose their names and the attributes that have their default value. Values become
    `a`, `b`, ..., `aa`, ..., except that inputs and outputs keep their names and weights those of their layers.
    Documentation, shapes of inner values, metadata and unused operator sets go.
    """
    result = onnx.ModelProto(ir_version=model.ir_version)
    result.producer_name, result.producer_version = "fertool", __version__
    used = {node.domain for node in model.graph.node}
    result.opset_import.extend(entry for entry in model.opset_import if entry.domain in used)
    versions = {entry.domain: entry.version for entry in result.opset_import}
    graph = result.graph
    graph.name = "fertool"
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    distinct, same_as = _shared_constants(model)
    computing = [node for node in model.graph.node if not same_as.keys() & set(node.output)]
    read = {same_as[value] for node in computing for value in node.input if value in same_as}
    kept = {name: tensor for name, tensor in distinct.items() if name in read}
    names = _names(model, computing, kept)
    for name, tensor in kept.items():
        graph.initializer.add().CopyFrom(tensor)
        graph.initializer[-1].name = names[name]
        graph.initializer[-1].ClearField("doc_string")
    for node in computing:
        copied = graph.node.add(op_type=node.op_type)
        if node.domain:
            copied.domain = node.domain
        copied.input.extend(names[same_as.get(value, value)] for value in node.input)
        copied.output.extend(names[value] for value in node.output)
        schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
        copied.attribute.extend(
            attribute for attribute in node.attribute if not _is_default(attribute, schema)
        )
    return result


def constants(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield name and content of each constant of the graph: initialisers, what Constant nodes make, and copies.

    The copies are Identity nodes, by which the exporter itself shares equal parameters.
    """
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    yield from known.items()


def _is_default(attribute: AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    value = onnx.helper.get_attribute_value(attribute)
    if schema.name == "Conv" and attribute.name in _CONV_DEFAULTS:
        return set(value) == {_CONV_DEFAULTS[attribute.name]}
    if schema.name == "Split":
        return False  # OpenCV 5 splits along another axis where the file names none
    default = schema.attributes[attribute.name].default_value
    return default.type == attribute.type and onnx.helper.get_attribute_value(default) == value


def _shared_constants(model: ModelProto) -> tuple[dict[str, TensorProto], dict[str, str]]:
    """Return the distinct constants by name, and for each name of a constant the one that stands for it."""
    first: dict[tuple[object, ...], str] = {}
    distinct: dict[str, TensorProto] = {}
    same_as: dict[str, str] = {}
    for name, tensor in constants(model):
        content = (
            tensor.data_type,
            tuple(tensor.dims),
            onnx.numpy_helper.to_array(tensor).tobytes(),
        )
        same_as[name] = first.setdefault(content, name)
        distinct.setdefault(same_as[name], tensor)
    return distinct, same_as


def _names(
    model: ModelProto, nodes: list[NodeProto], distinct: dict[str, TensorProto]
) -> dict[str, str]:
    """Return the new name of every value; "" stands for an optional input left out."""
    names = {
        "": "",
        **{value.name: value.name for value in (*model.graph.input, *model.graph.output)},
    }
    weights = {
        name: name.removeprefix(_STEM) for name, tensor in distinct.items() if len(tensor.dims) > 1
    }
    names.update(weights)
    taken = set(names.values())
    fresh = (name for name in _short_names() if name not in taken)
    for value in (*distinct, *(output for node in nodes for output in node.output)):
        if value not in names:
            names[value] = next(fresh)
    return names


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_letters, repeat=length))
