"""The inner feature maps of a network, one for each spatial resolution, found by running it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fertool.modes import eval_mode
from fertool.spec import InputSpec

_Size = tuple[int, int]
_CHANGES_IN_A_BLOCK = 1
"""A block may shrink its map once; what does so more often is a row of blocks."""


@dataclass(frozen=True)
class Stage:
    """The module whose result is the last map of its resolution: its name, channels, and [H, W] in pixels."""

    name: str
    channels: int
    size: _Size


@dataclass
class _Call:
    """One call of a module, what it called in turn, and the resolutions of all maps that went in and out."""

    name: str
    module: nn.Module
    result: torch.Size | None = None
    inner: list[_Call] = field(default_factory=list)
    sizes: set[_Size] = field(default_factory=set)


def find_stages(module: nn.Module, input: InputSpec) -> tuple[Stage, ...]:
    """Return the last feature map of each spatial resolution, in the order in which the network makes them.

    Maps are taken between blocks, never inside one, where a shortcut may go past them: a block is the outermost module
    that changes the resolution once at most. Maps of a single pixel, and modules that run more than once, are no
    stages.
    """
    root = _traced(module, input)
    times = Counter(id(call.module) for call in _all_calls(root))
    last: dict[_Size, Stage] = {}
    for call in _blocks(root):
        assert call.result is not None
        size = (call.result[2], call.result[3])
        if times[id(call.module)] == 1:
            last.pop(size, None)
            last[size] = Stage(call.name, call.result[1], size)
    return tuple(last.values())


@contextmanager
def recorded(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the context, put the results of the parts with these names into a dict each time that they run."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, result: maps.__setitem__(name, result)

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(keep(name)))
        yield maps


@torch.no_grad()
def _traced(module: nn.Module, input: InputSpec) -> _Call:
    """Run the network on one black image; returns its call."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    stack = [_Call("", nn.Module())]

    def enter(name: str) -> Any:
        def hook(called: nn.Module, inputs: tuple[Any, ...]) -> None:
            stack.append(_Call(name, called, sizes={_size(x) for x in inputs if _is_map(x)}))

        return hook

    def leave(_called: nn.Module, _inputs: Any, result: Any) -> None:
        call = stack.pop()
        if _is_map(result):
            call.result = result.shape
            call.sizes.add(_size(result))
        stack[-1].inner.append(call)
        stack[-1].sizes |= call.sizes

    with eval_mode(module), ExitStack() as hooks:
        for name, part in module.named_modules():
            hooks.enter_context(part.register_forward_pre_hook(enter(name)))
            hooks.enter_context(part.register_forward_hook(leave))
        module(torch.zeros(1, input.channels, input.size, input.size, device=device))
    return stack[0].inner[0]


def _blocks(call: _Call) -> Iterator[_Call]:
    for inner in call.inner:
        if inner.result is not None and len(inner.sizes) <= 1 + _CHANGES_IN_A_BLOCK:
            yield inner
        else:
            yield from _blocks(inner)


def _all_calls(call: _Call) -> Iterator[_Call]:
    yield call
    for inner in call.inner:
        yield from _all_calls(inner)


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value.shape[2] * value.shape[3] > 1


def _size(value: Tensor) -> _Size:
    return value.shape[2], value.shape[3]
