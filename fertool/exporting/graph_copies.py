"""Copies of graphs whose values get other names, so that several fit into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper


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


def int64_tensor(name: str, value: int | Iterable[int]) -> TensorProto:
    """Return a constant of 64-bit integers."""
    return numpy_helper.from_array(np.asarray(value, np.int64), name)
