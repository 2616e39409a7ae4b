"""Copies of graphs whose values get other names, so that several fit into one file."""

from __future__ import annotations

from collections.abc import Callable

from onnx import GraphProto, NodeProto


def copy_with_prefix(graph: GraphProto, prefix: str, fixed_names: dict[str, str]) -> GraphProto:
    """Return a copy whose values have a prefix before their names.

    Values in `fixed_names` get the name there instead.
    """

    def rename(name: str) -> str:
        # An optional input that is not given has no name.
        if not name:
            return ""
        return fixed_names.get(name, prefix + name)

    copied = GraphProto()
    copied.CopyFrom(graph)
    for value in (*copied.input, *copied.output, *copied.initializer, *copied.value_info):
        value.name = rename(value.name)
    for node in copied.node:
        _rename_values(node, rename)
    return copied


def _rename_values(node: NodeProto, rename: Callable[[str], str]) -> None:
    for values in (node.input, node.output):
        for position, name in enumerate(values):
            values[position] = rename(name)
