"""Constants, drafts of nodes, their builder, and the registry of converters of the ONNX importer.

A value is either a constant, whose numbers are known, or a draft: a node of the future graph, with
the shape that its result has for the current batch. Shapes come from PyTorch's meta device, which
computes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from fertool.graph.ir import MAX_NODES, Node, make_node
from fertool.graph.network import MAX_VALUES, as_results, bind_function, build_layer
from fertool.graph.operators import OPERATORS
from fertool.graph.shapes import known_result
from fertool.graph.signs import is_non_negative

Array = NDArray[Any]
ERF = "erf"
"""The error function. It is no operator of the table, but exporters write gelu with it."""
STORED = ("parameter", "constant")
"""Operators that hold a tensor and read nothing."""
MAX_FILLED = 1 << 24
"""Elements of a tensor that is computed from a few numbers of the file; more fill the memory."""
_MAX_FINITE = 1e30
"""The largest number that the operator table accepts; larger ones count as infinite."""


class UnsupportedNodeError(Exception):
    """An ONNX node that no operator of the table can represent.

    The message does not name the node, which the caller does.
    """


@dataclass(frozen=True)
class Constant:
    """A known value: an initializer, or what was computed from initializers and from shapes.

    `name` is the initializer's. With `of_shape` the value was computed from the shape of a draft,
    so that it is right for the current batch and not only for the batch of the file.
    """

    array: Array
    name: str = ""
    of_shape: bool = False

    @property
    def number(self) -> float | None:
        """The only element, None if there are more."""
        if self.array.size != 1:
            return None
        return float(self.array.reshape(-1)[0])


@dataclass(eq=False)
class Draft:
    """A node of the future graph, with results that have shapes and no values.

    `initializers` are the names in the file of its tensors, by the tensors' names in PyTorch's
    module. `other_batch` is the same draft for another number of images.
    """

    op: str
    inputs: list[Draft] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    initializers: dict[str, str] = field(default_factory=dict)
    origin: onnx.NodeProto = field(default_factory=onnx.NodeProto)
    results: tuple[Tensor, ...] = ()
    non_negative: bool = False
    other_batch: Draft | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, or of the first of several results."""
        return tuple(self.results[0].shape)

    def is_batch_axis(self, axis: int) -> bool:
        """Whether the size of an axis depends on the number of images, as far as that is known."""
        if self.other_batch is None:
            return False

        other = self.other_batch.shape
        return len(other) != len(self.shape) or other[axis] != self.shape[axis]

    def replace_(self, op: str, inputs: Sequence[Draft], **args: Any) -> None:
        """Turn into another node that has the same result."""
        self.op = op
        self.inputs = list(inputs)
        self.args = complete_arguments(op, len(inputs), args)
        self.tensors = {}
        self.initializers = {}


Value = Constant | Draft


@dataclass
class GraphBuilder:
    """The drafts so far, and the number of images for which their shapes are computed.

    `fixed_batch` is the number of images that the file was exported for, None where it leaves that
    open. `earlier` are the drafts for another number of images.
    """

    batch: int
    fixed_batch: int | None
    opset: int
    earlier: Sequence[Draft] = ()
    drafts: list[Draft] = field(default_factory=list)

    def append(self, draft: Draft) -> Draft:
        """Add a draft and infer the shape of its result.

        Raises UnsupportedNodeError where its inputs or arguments do not fit.
        """
        # Limits are checked node by node, so that a small file cannot fill the memory first.
        if len(self.drafts) >= MAX_NODES:
            raise UnsupportedNodeError(f"the graph has more than {MAX_NODES:,} nodes")

        try:
            draft.args = complete_arguments(draft.op, len(draft.inputs), draft.args)
            draft.results = _infer_results(draft)
            draft.non_negative = _is_non_negative(draft)
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            first_line = str(error).partition("\n")[0]
            raise UnsupportedNodeError(first_line) from None

        size = sum(result.numel() for result in draft.results)
        if size > self.batch * MAX_VALUES:
            raise UnsupportedNodeError("its result is too large")

        if len(self.drafts) < len(self.earlier):
            draft.other_batch = self.earlier[len(self.drafts)]
        self.drafts.append(draft)
        return draft


@dataclass
class OnnxCall:
    """An ONNX node that is being converted: its attributes and the values of its inputs."""

    builder: GraphBuilder
    node: onnx.NodeProto
    inputs: list[Value | None]
    attributes: Mapping[str, Any]

    @property
    def opset(self) -> int:
        """The version of the operators."""
        return self.builder.opset

    def value(self, index: int) -> Value:
        """Return a required input."""
        found = None
        if index < len(self.inputs):
            found = self.inputs[index]
        if found is None:
            raise UnsupportedNodeError(f"its input {index} is missing")
        return found

    def draft(self, index: int = 0) -> Draft:
        """Return a required input as a draft; a constant becomes a node."""
        value = self.value(index)
        return value if isinstance(value, Draft) else self.add_tensor(value)

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int) -> Constant:
        """Return a required input whose value must be known."""
        value = self.value(index)
        if isinstance(value, Draft):
            name = self.node.input[index]
            raise UnsupportedNodeError(f"its input {index} ('{name}') is computed from the images")
        return value

    def optional_constant(self, index: int) -> Constant | None:
        """Return an optional input whose value must be known."""
        return self.constant(index) if self.has_input(index) else None

    def integers(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """Return integers that are an attribute in older opsets and an input in newer ones.

        None where the node has neither.
        """
        if attribute in self.attributes:
            given = self.attributes[attribute]
            return (given,) if isinstance(given, int) else tuple(given)

        constant = self.optional_constant(index)
        if constant is None:
            return None
        return int_tuple(constant.array)

    def axis(self, default: int, rank: int) -> int:
        """Return the attribute `axis`, counted from the front."""
        return normalize_axis(self.attributes.get("axis", default), rank)

    def output_count(self) -> int:
        """Return how many results are used."""
        # ONNX gives optional results that nothing uses an empty name.
        return sum(bool(name) for name in self.node.output)

    def add(self, op: str, *inputs: Draft, **args: Any) -> Draft:
        """Append a draft."""
        return self.builder.append(Draft(op, list(inputs), args, origin=self.node))

    def add_layer(
        self, op: str, x: Draft, tensors: Mapping[str, Constant | None], **args: Any
    ) -> Draft:
        """Append a draft with its tensors, by the names that they have in PyTorch's module."""
        arrays: dict[str, Array] = {}
        names: dict[str, str] = {}
        for key, constant in tensors.items():
            if constant is not None:
                arrays[key] = float32_array(constant)
                names[key] = constant.name
        return self.builder.append(Draft(op, [x], args, arrays, names, self.node))

    def add_tensor(self, constant: Constant) -> Draft:
        """Append a tensor outside of a layer: a parameter if it is an initializer of the file."""
        array = float32_array(constant)
        op = "parameter" if constant.name else "constant"
        args = {"shape": tuple(array.shape)}
        draft = Draft(op, [], args, {"": array}, {"": constant.name}, self.node)
        return self.builder.append(draft)


Converter = Callable[[OnnxCall], Value | Sequence[Value]]
"""Appends the drafts for an ONNX node; returns the values of its outputs."""
CONVERTERS: dict[str, Converter] = {}
"""By ONNX operator."""


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Register a function as the converter of the ONNX operators with these names."""

    def register(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(names, converter))
        return converter

    return register


def float32_array(constant: Constant) -> Array:
    """Return the numbers of a constant that becomes a tensor of the network."""
    if constant.array.dtype != np.float32:
        raise UnsupportedNodeError(
            f"'{constant.name}' has numbers of the type {constant.array.dtype}, not float32"
        )
    return constant.array


def int_tuple(array: Array) -> tuple[int, ...]:
    """Return the elements of an array as Python's integers."""
    return tuple(map(int, array.reshape(-1)))


def finite_float(value: float) -> float | None:
    """Return a float32 in the fewest digits that identify it, or None for infinity."""
    if abs(value) >= _MAX_FINITE:
        return None
    return shortest_float(value)


def shortest_float(value: float) -> float:
    """Return a float32 as people write it: 0.1 and not 0.10000000149."""
    return float(str(np.float32(value)))


def python_slice(start: int, end: int, step: int, size: int) -> slice:
    """Return a slice of ONNX over an axis of `size` entries as one of Python."""
    stop: int | None = end
    if step < 0 and end < -size:
        # ONNX takes such an end as "before the first index", Python as counted from the back.
        stop = None
    return slice(start, stop, step)


def normalize_axis(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    if not -rank <= axis < rank:
        raise UnsupportedNodeError(f"it names the axis {axis} of {rank}")
    return axis % rank


def complete_arguments(op: str, inputs: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with the defaults, checked against the operator table."""
    if op == ERF:
        return {}
    return dict(make_node(op, op, ["x"] * inputs, **args).args)


def require_allocatable(size: int) -> None:
    """Raise UnsupportedNodeError for a large tensor that a few numbers of the file would fill."""
    if size > MAX_FILLED:
        raise UnsupportedNodeError(f"it takes a tensor of {size:,} numbers")


def _is_non_negative(draft: Draft) -> bool:
    if draft.op == ERF:
        return False
    inputs = [source.non_negative for source in draft.inputs]
    return is_non_negative(draft.op, draft.args, inputs)


def _infer_results(draft: Draft) -> tuple[Tensor, ...]:
    """Return the results of a draft on the meta device: shapes without values."""
    inputs = [source.results[0] for source in draft.inputs]
    if draft.op in STORED:
        return (torch.empty(draft.args["shape"], device="meta"),)
    if draft.op == "getitem":
        return (draft.inputs[0].results[draft.args["index"]],)
    if draft.op == ERF:
        return (inputs[0],)

    # For most nodes a rule tells the shape: running them on the meta device takes far longer.
    known = known_result(Node(draft.op, draft.op, args=draft.args), inputs)
    if known is not None:
        return (known,)
    if OPERATORS[draft.op].layer:
        compute: Callable[..., Any] = build_layer(draft.op, draft.args, inputs[0].shape)
    else:
        compute = bind_function(draft.op, draft.args)
    with torch.no_grad():
        return as_results(compute(*inputs))
