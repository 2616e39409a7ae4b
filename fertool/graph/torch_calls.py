"""A recorded call of a PyTorch function, and the registry of converters.

One operator has many spellings: a function, a method, one that works in place, an ATen operator. A
converter binds the arguments by name and appends the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class UnsupportedCallError(Exception):
    """A call that no operator of the table can represent."""


class NodeRecorder(Protocol):
    """What a converter needs of the recorder; a protocol, since the recorder imports converters."""

    tensors: dict[str, Tensor]

    def source(self, value: Any) -> str:
        """Return the name of the node that computed a tensor."""

    def tensor_name(self, tensor: Tensor) -> str | None:
        """Return the name of a parameter or buffer."""

    def add(self, op: str, inputs: list[str], args: Mapping[str, Any], wanted: str = "") -> str:
        """Append a node; returns its name."""


@dataclass
class TorchCall:
    """One call: the function's name without its spelling, its arguments, and its result."""

    recorder: NodeRecorder
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    def bind(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Return the arguments by name.

        Positional arguments are in the order of `names` and then of `defaults`. Raises
        UnsupportedCallError where one of `names` is missing.
        """
        order = (*names, *defaults)
        positional = dict(zip(order, self.args, strict=False))
        bound = {**defaults, **positional, **self.kwargs}
        # ATen calls the first argument `self`, torch's functions mostly `input`.
        if "self" in bound and names and names[0] not in bound:
            bound[names[0]] = bound["self"]
        for name in names:
            if name not in bound:
                raise UnsupportedCallError(f"{self.name} without its argument '{name}'")
        return bound

    def add(self, op: str, *inputs: Any, **args: Any) -> str:
        """Append a node with some tensors as inputs; returns its name."""
        sources = [self.recorder.source(value) for value in inputs]
        return self.recorder.add(op, sources, args)

    def add_layer(self, op: str, x: Any, tensors: Mapping[str, Tensor | None], **args: Any) -> str:
        """Append a layer; returns its name.

        `x` is the input, or the name of its node. `tensors` have the names of PyTorch's module. The
        layer has the name of the module that owns them, where that is one.
        """
        given: dict[str, Tensor] = {}
        owners: set[str] = set()
        for key, tensor in tensors.items():
            if tensor is None:
                continue
            given[key] = tensor
            name = self.recorder.tensor_name(tensor)
            if name is not None:
                owners.add(name.rpartition(".")[0])
        wanted = ""
        if len(owners) == 1:
            wanted = owners.pop()
        source = x if isinstance(x, str) else self.recorder.source(x)
        layer = self.recorder.add(op, [source], args, wanted)
        for key, tensor in given.items():
            self.recorder.tensors[f"{layer}.{key}"] = tensor
        return layer


Converter = Callable[[TorchCall], str]
"""Appends the nodes for a call; returns the name of the last."""
REGISTERED: dict[str, Converter] = {}
"""The converters that are written as functions, by the name of a PyTorch function."""

_REVERSIBLE = ("add", "sub", "mul", "div", "truediv", "matmul", "pow")


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Register a function as the converter of the PyTorch functions with these names."""

    def register(converter: Converter) -> Converter:
        REGISTERED.update(dict.fromkeys(names, converter))
        return converter

    return register


def function_name(func: Any) -> str:
    """Return the name of a function without its spelling.

    `add` for `torch.add`, `Tensor.add_`, `Tensor.__iadd__` and `aten.add.Tensor`; `reversed add`
    for `Tensor.__radd__`, `get T` for the property `Tensor.T`.
    """
    name = str(getattr(func, "__name__", func)).split(".")[0]
    if name == "__get__":
        return f"get {func.__self__.__name__}"
    if name.startswith("__"):
        return _special_method(name.strip("_"))
    if name == "requires_grad_":
        # Without its underscore this would be the attribute of the same name.
        return name
    return name.rstrip("_")


def _special_method(name: str) -> str:
    """Return the function of a special method, given without its underscores: `iadd`, `radd`."""
    prefix, operation = name[:1], name[1:]
    if operation not in _REVERSIBLE or prefix not in ("i", "r"):
        return name
    if prefix == "r":
        return f"reversed {operation}"
    return operation


def returns_tensors(result: Any) -> bool:
    """Whether a call computes tensors and not only, for example, a size."""
    if isinstance(result, tuple | list):
        return any(isinstance(part, Tensor) for part in result)
    return isinstance(result, Tensor)


def as_tuple(value: Any) -> tuple[int, ...]:
    """Return axes or shifts as a tuple; PyTorch also takes a single one."""
    if isinstance(value, tuple | list | range):
        return tuple(value)
    return (value,)


def int_per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Return one integer for each axis of a window; PyTorch also takes one for all of them."""
    values = tuple(map(int, as_tuple(value)))
    if len(values) == 1:
        return values * axes
    return values
