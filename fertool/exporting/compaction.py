"""Remove everything from an ONNX graph that no runtime reads.

In a small INT8 file names and repeated constants are a tenth of the bytes.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator, Mapping, Set

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from fertool import __version__
from fertool.exporting.graph_parts import constant_tensors, without_constants

_PARAMETER_PREFIX = "network."
# The schema of Conv describes these defaults in prose only; each stands for one value per axis.
_CONV_DEFAULTS = {"dilations": 1, "pads": 0, "strides": 1}


def compact_graph(model: ModelProto) -> ModelProto:
    """Return the same computation with shared constants and short names, and no unread parts.

    Equal constants become one. Nodes lose their names and the attributes that have their default
    value. Values become `a`, `b`, ..., `aa`, ..., except that inputs and outputs keep their names
    and weights those of their layers. Documentation, shapes of inner values, metadata and unused
    operator sets are removed.
    """
    result = onnx.ModelProto(ir_version=model.ir_version)
    result.producer_name = "fertool"
    result.producer_version = __version__
    versions = _copy_used_operator_sets(model, result)
    result.graph.name = "fertool"
    result.graph.input.extend(model.graph.input)
    result.graph.output.extend(model.graph.output)

    constants, representatives = _share_constants(model)
    nodes, _ = without_constants(model.graph.node, (), representatives.keys())
    constants = _used_constants(nodes, constants, representatives)
    short_names = _short_names(model, nodes, constants)
    for name, tensor in constants.items():
        copied = result.graph.initializer.add()
        copied.CopyFrom(tensor)
        copied.name = short_names[name]
        copied.ClearField("doc_string")

    for node in nodes:
        _add_compact_node(result, node, representatives, short_names, versions)
    return result


def _copy_used_operator_sets(model: ModelProto, result: ModelProto) -> dict[str, int]:
    """Copy the operator sets that a node belongs to; returns their versions by domain."""
    domains = {node.domain for node in model.graph.node}
    versions = {}
    for entry in model.opset_import:
        if entry.domain in domains:
            result.opset_import.append(entry)
            versions[entry.domain] = entry.version
    return versions


def _add_compact_node(
    result: ModelProto,
    node: NodeProto,
    representatives: Mapping[str, str],
    short_names: Mapping[str, str],
    versions: Mapping[str, int],
) -> None:
    """Append a node without its name and its default attributes."""
    copied = result.graph.node.add(op_type=node.op_type)
    if node.domain:
        copied.domain = node.domain
    for value in node.input:
        copied.input.append(short_names[representatives.get(value, value)])
    for value in node.output:
        copied.output.append(short_names[value])

    schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    for attribute in node.attribute:
        if not _is_default(attribute, schema):
            copied.attribute.append(attribute)


def _is_default(attribute: AttributeProto, schema: onnx.defs.OpSchema) -> bool:
    # OpenCV 5 splits along another axis where the file names none.
    if schema.name == "Split":
        return False
    value = onnx.helper.get_attribute_value(attribute)
    if schema.name == "Conv" and attribute.name in _CONV_DEFAULTS:
        return set(value) == {_CONV_DEFAULTS[attribute.name]}
    default = schema.attributes[attribute.name].default_value
    return default.type == attribute.type and onnx.helper.get_attribute_value(default) == value


def _share_constants(model: ModelProto) -> tuple[dict[str, TensorProto], dict[str, str]]:
    """Return the distinct constants by name, and for each constant the name of its equal there.

    Constants are equal when type, shape and bytes are.
    """
    first_names: dict[tuple[object, ...], str] = {}
    distinct: dict[str, TensorProto] = {}
    representatives: dict[str, str] = {}

    for name, tensor in constant_tensors(model).items():
        values = onnx.numpy_helper.to_array(tensor)
        content = (tensor.data_type, tuple(tensor.dims), values.tobytes())
        representative = first_names.setdefault(content, name)
        representatives[name] = representative
        distinct.setdefault(representative, tensor)
    return distinct, representatives


def _used_constants(
    nodes: Iterable[NodeProto],
    constants: Mapping[str, TensorProto],
    representatives: Mapping[str, str],
) -> dict[str, TensorProto]:
    """Return those of the distinct constants that a node reads, in the same order."""
    used = set()
    for node in nodes:
        for value in node.input:
            used.add(representatives.get(value, value))
    kept = {}
    for name, tensor in constants.items():
        if name in used:
            kept[name] = tensor
    return kept


def _short_names(
    model: ModelProto, nodes: Iterable[NodeProto], constants: Mapping[str, TensorProto]
) -> dict[str, str]:
    """Return the new name of every value; "" stands for an optional input that is not given."""
    names = {"": ""}
    for value in (*model.graph.input, *model.graph.output):
        names[value.name] = value.name
    for name, tensor in constants.items():
        # Weights keep readable names: tools that show a file by layer have nothing else to go by.
        if len(tensor.dims) > 1:
            names[name] = name.removeprefix(_PARAMETER_PREFIX)

    # This order decides which value gets which name, and so the bytes of the file.
    remaining = list(constants)
    for node in nodes:
        remaining += node.output
    fresh = _generate_names(taken=set(names.values()))
    for name in remaining:
        if name not in names:
            names[name] = next(fresh)
    return names


def _generate_names(taken: Set[str]) -> Iterator[str]:
    """Yield a, b, ..., Z, aa, ab, ... without end, except those that are taken."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            name = "".join(letters)
            if name not in taken:
                yield name
