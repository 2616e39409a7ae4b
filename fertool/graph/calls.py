"""A captured call of a PyTorch function, and the register of those who can read one.

The same operator has many spellings: a function, a method, one that works in place, an ATen operator. A reader binds
the arguments by name and appends the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class UnknownCallError(Exception):
    """A call that no operator of the table stands for."""


class Recorder(Protocol):
    """What a reader needs of the recorder."""

    tensors: dict[str, Tensor]

    def source(self, value: Any) -> str:
        """Return the name of the node that made a tensor."""

    def tensor_name(self, tensor: Tensor) -> str | None:
        """Return the name of a parameter or buffer."""

    def add(self, op: str, inputs: list[str], args: Mapping[str, Any], wanted: str = "") -> str:
        """Append a node; returns its name."""


@dataclass
class Call:
    """One call: its name in the table's spelling, its arguments, and its result."""

    recorder: Recorder
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: Any

    def bound(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Return the arguments by name: positional ones in the order of `names`, then of `defaults`."""
        order = (*names, *defaults)
        found = {**defaults, **dict(zip(order, self.args, strict=False)), **self.kwargs}
        if "self" in found and names and names[0] not in found:
            found[names[0]] = found["self"]
        missing = [name for name in names if name not in found]
        if missing:
            raise UnknownCallError(f"{self.name} without its argument '{missing[0]}'")
        return found

    def add(self, op: str, *inputs: Any, wanted: str = "", **args: Any) -> str:
        """Append a node that reads some tensors; returns its name."""
        return self.recorder.add(
            op, [self.recorder.source(value) for value in inputs], args, wanted
        )

    def add_layer(self, op: str, x: Any, tensors: Mapping[str, Tensor | None], **args: Any) -> str:
        """Append a layer with its tensors, by the names that they have in PyTorch's module; returns its name."""
        held = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        own = [self.recorder.tensor_name(tensor) for tensor in held.values()]
        paths = {name.rpartition(".")[0] for name in own if name is not None}
        wanted = paths.pop() if len(paths) == 1 else ""
        name = self.recorder.add(op, [self.recorder.source(x)], args, wanted)
        self.recorder.tensors.update({f"{name}.{key}": tensor for key, tensor in held.items()})
        return name


Reader = Callable[[Call], str]
"""Writes a call as nodes; returns the name of the last."""
WRITTEN: dict[str, Reader] = {}


def reads(*names: str) -> Callable[[Reader], Reader]:
    """Make a function the reader of the calls with these names."""

    def add(reader: Reader) -> Reader:
        WRITTEN.update(dict.fromkeys(names, reader))
        return reader

    return add


def function_name(func: Any) -> str:
    """Return the name of a function without its spelling as method, in place or ATen operator."""
    name = str(getattr(func, "__name__", func)).split(".")[0]
    if name == "__get__":
        return f"get {func.__self__.__name__}"
    if name.startswith("__"):
        inner = name.strip("_")
        plain = inner[1:] if inner[:1] in "ir" and inner[1:] in _ARITHMETIC else inner
        return f"reversed {plain}" if inner.startswith("r") and plain != inner else plain
    return name.rstrip("_") if name not in ("requires_grad_",) else name


def is_silent(name: str, result: Any) -> bool:
    """Return whether a call computes no tensor, such as the question for a size."""
    if isinstance(result, Tensor):
        return False
    return not (
        isinstance(result, tuple | list) and any(isinstance(part, Tensor) for part in result)
    )


_ARITHMETIC = ("add", "sub", "mul", "div", "truediv", "matmul", "pow")


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Return one number for each axis of a window, of which PyTorch takes one for all of them too."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return tuple(int(v) for v in (values * axes if len(values) == 1 else values))
