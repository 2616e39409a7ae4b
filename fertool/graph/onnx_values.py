"""What the reader of ONNX files works with: values, nodes in the making, and the register of who reads which operator.

A value is either a constant, whose numbers are known, or a draft: a node of the graph to come, with the shape that its
result has for the batch at hand. Shapes come from PyTorch's meta device, which computes nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from fertool.graph.ir import MAX_NODES, make_node
from fertool.graph.network import MAX_VALUES
from fertool.graph.operators import OPERATORS

Array = NDArray[Any]
ERF = "erf"
"""The error function, which is no operator of the table: gelu is written with it."""
_MOST_FILLED = 1 << 24
_LARGEST_REAL = 1e30
"""What the table takes for a number; beyond it stands infinity."""


class UnreadableNodeError(Exception):
    """What no operator of the table stands for, said without the node's name."""


@dataclass(frozen=True)
class Constant:
    """A value that is known: an initializer, or what was computed from such and from shapes.

    `name` is the initializer's. With `of_shape` it was computed from the shape of something that the images pass
    through, so that it is right for the batch at hand.
    """

    array: Array
    name: str = ""
    of_shape: bool = False

    @property
    def number(self) -> float | None:
        """The only entry, None if there are more."""
        return float(self.array.reshape(-1)[0]) if self.array.size == 1 else None


@dataclass(eq=False)
class Draft:
    """A node in the making: its operator, what it reads, its arguments and tensors, and a result without values.

    `held` are the names of the initializers that its tensors were, by the tensors' names in PyTorch's module.
    """

    op: str
    inputs: list[Draft] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    origin: onnx.NodeProto = field(default_factory=onnx.NodeProto)
    results: tuple[Tensor, ...] = ()
    never_negative: bool = False
    twin: Draft | None = None
    """The same draft for another number of images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result, of several that of the first."""
        return tuple(self.results[0].shape)

    def has_images_along(self, axis: int) -> bool:
        """Whether the size of an axis depends on the number of images, as far as that is known."""
        if self.twin is None:
            return False
        other = self.twin.shape
        return len(other) != len(self.shape) or other[axis] != self.shape[axis]

    def becomes(self, op: str, inputs: Sequence[Draft], **args: Any) -> None:
        """Turn into another node whose result is the same."""
        self.inputs, self.op = list(inputs), op
        self.args = complete_arguments(op, len(inputs), args)
        self.tensors, self.held = {}, {}


Value = Constant | Draft


@dataclass
class Sheet:
    """The drafts so far, and the number of images for which they are drawn.

    `fixed_batch` is the number of images that the file is made for; None where it leaves that open. `earlier` are the
    drafts for another number of images.
    """

    batch: int
    fixed_batch: int | None
    opset: int
    earlier: Sequence[Draft] = ()
    drafts: list[Draft] = field(default_factory=list)

    def append(self, draft: Draft) -> Draft:
        """Add a draft and find the shape of its result; raises UnreadableNodeError where it does not fit."""
        if len(self.drafts) >= MAX_NODES:
            raise UnreadableNodeError(f"the graph has more than {MAX_NODES:,} nodes")
        try:
            draft.args = complete_arguments(draft.op, len(draft.inputs), draft.args)
            draft.results = _results(draft)
            draft.never_negative = _is_never_negative(draft)
        except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as error:
            raise UnreadableNodeError(str(error).partition("\n")[0]) from None
        if sum(result.numel() for result in draft.results) > self.batch * MAX_VALUES:
            raise UnreadableNodeError("its result is too large")
        if len(self.drafts) < len(self.earlier):
            draft.twin = self.earlier[len(self.drafts)]
        self.drafts.append(draft)
        return draft


@dataclass
class Call:
    """A node of the file that is being read: its attributes and the values that it reads."""

    sheet: Sheet
    node: onnx.NodeProto
    inputs: list[Value | None]
    attributes: Mapping[str, Any]

    @property
    def opset(self) -> int:
        """The version of the operators."""
        return self.sheet.opset

    def value(self, index: int) -> Value:
        """Return an input that has to be there."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise UnreadableNodeError(f"its input {index} is missing")
        return found

    def flow(self, index: int = 0) -> Draft:
        """Return an input as a draft; of a constant a node is made."""
        value = self.value(index)
        return value if isinstance(value, Draft) else self.parameter(value)

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def constant(self, index: int) -> Constant:
        """Return an input that has to be known."""
        value = self.value(index)
        if isinstance(value, Draft):
            raise UnreadableNodeError(
                f"its input {index} ('{self.node.input[index]}') is computed from the images"
            )
        return value

    def optional(self, index: int) -> Constant | None:
        """Return an input that has to be known where it is given."""
        return self.constant(index) if self.has(index) else None

    def integers(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """Return whole numbers that are an attribute in older files and an input in newer ones; None if neither."""
        if attribute in self.attributes:
            given = self.attributes[attribute]
            return (given,) if isinstance(given, int) else tuple(given)
        found = self.optional(index)
        return None if found is None else tuple(int(number) for number in found.array.reshape(-1))

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """Return the attribute `axis`, counted from the front."""
        return front(self.attributes.get(name, default), rank)

    def add(self, op: str, *inputs: Draft, **args: Any) -> Draft:
        """Append a draft."""
        return self.sheet.append(Draft(op, list(inputs), args, origin=self.node))

    def add_layer(
        self, op: str, x: Draft, tensors: Mapping[str, Constant | None], **args: Any
    ) -> Draft:
        """Append a draft that holds tensors, by the names that they have in PyTorch's module."""
        given = {key: constant for key, constant in tensors.items() if constant is not None}
        arrays = {key: float_array(constant) for key, constant in given.items()}
        held = {key: constant.name for key, constant in given.items()}
        return self.sheet.append(Draft(op, [x], args, arrays, held, self.node))

    def parameter(self, constant: Constant) -> Draft:
        """Append a tensor that is no part of a layer: a weight can be learned, other constants can not."""
        array = float_array(constant)
        op = "parameter" if constant.name else "constant"
        args = {"shape": tuple(array.shape)}
        return self.sheet.append(Draft(op, [], args, {"": array}, {"": constant.name}, self.node))


Reader = Callable[[Call], Value | Sequence[Value]]
"""Writes a node of the file as drafts; returns its result, or its results."""
READERS: dict[str, Reader] = {}
"""By the name of an ONNX operator, what reads it."""


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Make a function the reader of the operators with these names."""

    def add(reader: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return add


def float_array(constant: Constant) -> Array:
    """Return the numbers of a constant that becomes a tensor of the network."""
    if constant.array.dtype != np.float32:
        raise UnreadableNodeError(
            f"'{constant.name}' has numbers of the type {constant.array.dtype}, not float32"
        )
    return constant.array


def real(value: float) -> float | None:
    """Return a bound, None for one that bounds nothing; float32 in the fewest digits that tell it, as people write."""
    return None if abs(value) >= _LARGEST_REAL else float(str(np.float32(value)))


def front(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    if not -rank <= axis < rank:
        raise UnreadableNodeError(f"it names the axis {axis} of {rank}")
    return axis % rank


def complete_arguments(op: str, inputs: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with the defaults, checked against the table."""
    if op == ERF:
        return {}
    return dict(make_node(op, op, ["x"] * inputs, **args).args)


def require_small(size: int) -> None:
    """Raise UnreadableNodeError for a tensor that a few numbers of the file would fill."""
    if size > _MOST_FILLED:
        raise UnreadableNodeError(f"it takes a tensor of {size:,} numbers")


def _is_never_negative(draft: Draft) -> bool:
    if draft.op == ERF:
        return False
    sign = OPERATORS[draft.op].sign
    follows = (
        sign == "inherited"
        and bool(draft.inputs)
        and all(source.never_negative for source in draft.inputs)
    )
    return sign == "non-negative" or follows


def _results(draft: Draft) -> tuple[Tensor, ...]:
    """Return what a draft makes of tensors on the meta device, which have shapes alone."""
    read = [source.results[0] for source in draft.inputs]
    if draft.op in ("parameter", "constant"):
        return (torch.empty(draft.args["shape"], device="meta"),)
    if draft.op == ERF or OPERATORS[draft.op].channel_effect in ("elementwise", "per_channel"):
        return (read[0],)
    if draft.op == "getitem":
        return (draft.inputs[0].results[draft.args["index"]],)
    operator = OPERATORS[draft.op]
    if operator.channel_effect == "couples":
        shape = np.broadcast_shapes(*(x.shape for x in read))
        return (torch.empty(shape, device="meta"),)
    module, _, name = operator.function.rpartition(".")
    computes: Callable[..., Any] = getattr(importlib.import_module(module), name)
    if operator.layer:
        with torch.device("meta"):
            computes = computes(draft.args, read[0].shape)
    else:
        computes = partial(
            computes, **{name: value for name, value in draft.args.items() if value is not None}
        )
    with torch.no_grad():
        made = computes(*read)
    return tuple(made) if isinstance(made, tuple | list) else (made,)
