"""Writing down the calls of PyTorch functions that work on what comes from the images, as nodes of a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fertool.errors import FertoolError
from fertool.graph.calls import Call, UnknownCallError, function_name, is_silent
from fertool.graph.ir import INPUT, Graph, Node, make_node
from fertool.graph.network import is_reserved
from fertool.graph.operators import OPERATORS
from fertool.graph.read_functions import READERS

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_DROP_PATHS = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""Modules of other libraries, by class, that drop branches in training and vanish in eval mode, with their argument."""


@dataclass
class Recording:
    """What one run has shown: nodes, the values of their tensors, and the name of the result."""

    nodes: list[Node]
    tensors: dict[str, Tensor]
    output: str

    def tensors_of(self, graph: Graph) -> dict[str, Tensor]:
        """Return the tensors that a graph needs, in the order of its nodes."""
        layers = [node.name for node in graph.nodes if node.operator.layer]
        by_layer: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            owner = name if name in graph.by_name else name.rpartition(".")[0]
            by_layer.setdefault(owner, {})[name] = tensor
        return {name: tensor for layer in layers for name, tensor in by_layer[layer].items()}


class Recorder(TorchFunctionMode):
    """Writes down every call of a torch function that works on what comes from the images."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Know the learned tensors and the constants of a network by their names."""
        super().__init__()
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.known: dict[int, str] = {}
        self.changed: set[int] = set()
        self.alive: list[Any] = []
        self._names = {id(tensor): name for name, tensor in tensors.items()}
        self._learned = {
            id(tensor) for tensor in tensors.values() if isinstance(tensor, nn.Parameter)
        }
        self._taken = {INPUT}
        self._path: list[tuple[str, bool]] = [("", False)]

    def start(self, images: Tensor) -> None:
        """Begin with the images."""
        self.known[id(images)] = INPUT
        self.alive.append(images)

    def finished(self, result: Any) -> Recording:
        """Return what was written down; raises FertoolError for a result that does not come from the images."""
        while isinstance(result, tuple | list | dict) and result:
            # Networks with more than one head are deployed by their first.
            result = next(iter(result.values())) if isinstance(result, dict) else result[0]
        name = self.known.get(id(result), INPUT) if isinstance(result, Tensor) else INPUT
        if name == INPUT:
            raise FertoolError(
                "the network's result is no tensor made from the images", "return the logits"
            )
        return Recording(self.nodes, self.tensors, name)

    @property
    def place(self) -> str:
        """The path of the module that is running."""
        return self._path[-1][0]

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Know within the context which part of a module is running."""
        with ExitStack() as hooks:
            for name, part in module.named_modules():
                is_operator = type(part).__module__.startswith(
                    "torch.nn.modules"
                ) and not isinstance(part, _CONTAINERS)
                hooks.enter_context(
                    part.register_forward_pre_hook(self._entering(name, is_operator))
                )
                hooks.enter_context(
                    part.register_forward_hook(self._leaving(part, name), always_call=False)
                )
            yield

    def enter(self, path: str, kind: str) -> None:
        """Know which part of a program the next call comes from."""
        self._path = [
            (
                path,
                kind.startswith("torch.nn.modules")
                and not kind.endswith(("Sequential", "ModuleList")),
            )
        ]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._note(func, args, kwargs or {}, result)
        return result

    def name_for(self, op: str, wanted: str = "") -> str:
        """Return a name for a node that is not taken: `wanted`, or that of its place."""
        path, is_operator = self._path[-1]
        base = wanted or (path if is_operator and path else f"{path}.{op}" if path else op)
        if is_reserved(base):
            first, dot, rest = base.partition(".")
            base = f"{first}_{dot}{rest}"
        # What holds a tensor in a place of its own can have nothing inside.
        separator = "." if OPERATORS[op].inputs[1] else "_"
        name, count = base, 1
        while name in self._taken:
            if wanted and count == 1 and not self._is_free(base):
                raise UnknownCallError(
                    f"the layer '{wanted}' runs more than once; give each use a layer of its own"
                )
            name, count = f"{base}{separator}{count}", count + 1
        self._taken.add(name)
        return name

    def add(self, op: str, inputs: list[str], args: Mapping[str, Any], wanted: str = "") -> str:
        """Append a node; returns its name."""
        name = self.name_for(op, wanted)
        self.nodes.append(make_node(name, op, inputs, **args))
        return name

    def tensor_name(self, tensor: Tensor) -> str | None:
        """Return the name of a parameter or buffer of the module; None for other tensors."""
        return self._names.get(id(tensor))

    def source(self, value: Any) -> str:
        """Return the name of the node that made a tensor; a tensor from nowhere becomes a node of its own."""
        if id(value) in self.known:
            return self.known[id(value)]
        if id(value) in self.changed:
            raise UnknownCallError("a tensor that was changed in place through a view of it")
        if not isinstance(value, Tensor):
            raise UnknownCallError(f"a {type(value).__name__} where a tensor was expected")
        return self._held(value)

    def _is_free(self, name: str) -> bool:
        return all(node.name != name or not node.operator.layer for node in self.nodes)

    def _held(self, value: Tensor) -> str:
        if not value.is_floating_point():
            raise UnknownCallError(
                f"a tensor of {str(value.dtype).removeprefix('torch.')} that is no image"
            )
        learned, own = id(value) in self._learned, self.tensor_name(value)
        name = self.add(
            "parameter" if learned else "constant", [], {"shape": tuple(value.shape)}, own or ""
        )
        self.tensors[name] = value
        self.known[id(value)] = name
        self.alive.append(value)
        return name

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        name = function_name(func)
        depends = any(
            id(value) in self.known or id(value) in self.changed
            for value in _tensors((args, kwargs))
        )
        if not depends or is_silent(name, result):
            return
        reader = READERS.get(name)
        if reader is None:
            raise UnknownCallError(f"the function '{name}' is not in the operator table")
        made = reader(Call(self, name, args, kwargs, result))
        self.alive.append(result)
        if isinstance(result, tuple | list):
            for index, part in enumerate(result):
                self.known[id(part)] = self.add(
                    "getitem", [made], {"index": index}, f"{made}.{index}"
                )
                self.alive.append(part)
            return
        if args and result is args[0] and result._base is not None:
            self.changed.add(id(result._base))
            self.known.pop(id(result._base), None)
        self.known[id(result)] = made

    def _entering(self, name: str, is_operator: bool) -> Any:
        return lambda _module, _inputs: self._path.append((name, is_operator))

    def _leaving(self, part: nn.Module, name: str) -> Any:
        argument = _DROP_PATHS.get(type(part).__name__, "")

        def leave(_module: nn.Module, inputs: Any, result: Any) -> Any:
            probability = float(vars(part).get(argument) or 0)
            if probability and result is inputs[0]:
                # A new object, so that what reads the result is told from what reads the input.
                with torch._C.DisableTorchFunction():
                    result = inputs[0].view_as(inputs[0])
                self.known[id(result)] = self.add(
                    "stochastic_depth", [self.source(inputs[0])], {"p": probability}, name
                )
                self.alive.append(result)
            self._path.pop()
            return result

        return leave


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
