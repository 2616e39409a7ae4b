"""A graph as a module that runs, trains and holds the tensors."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.graph.ir import Graph, Node
from fertool.graph.shapes import known_result
from fertool.strict_json import shown

MAX_VALUES = 1 << 27
"""Values that one image may have at any place of a network."""
ImageShape = tuple[int, int, int]
"""Channels, height and width."""
_OWN = (
    "graph",
    "image",
    "steps",
    "shapes",
    "listeners",
    "training",
    "grids",
    "quantizers",
    "float_params",
    "learned",
)
"""Attributes of networks and of quantized ones."""
Adapt = Callable[[Node, Sequence[torch.Size]], Node]
"""Returns a node with other arguments, given the shapes of what it reads."""


@dataclass(frozen=True)
class Step:
    """One node, ready to run: its function, what it reads, and what nobody reads after it."""

    name: str
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    last_uses: tuple[str, ...]
    random: bool


class Network(nn.Module):
    """A graph and its tensors, [N, C, H, W] to the graph's result.

    Layers are submodules under the names of their nodes, so that tensors have the names that they had where the network
    comes from. `image` is the shape of one image, `shapes` those of each result, of one image too; `steps` are the
    nodes ready to run. A result can pass through a module before it is read: `tap`; `listeners` are shown results.
    """

    def __init__(self, graph: Graph, image: ImageShape, adapted: Adapt | None = None) -> None:
        """Build the network without values, on the meta device; `adapted` may change each node as it is added.

        Raises FertoolError naming the first node that does not fit what it reads.
        """
        super().__init__()
        self.graph = graph
        self.image = image
        self.steps: list[Step] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._calls: dict[str, Callable[..., Any]] = {}
        self._taps: dict[str, nn.Module] = {}
        self.listeners: dict[str, Callable[[Tensor], object]] = {}
        values: dict[str, Any] = {graph.input: torch.empty(2, *image, device="meta")}
        nodes = []
        for node in graph.nodes:
            read = [values[name] for name in node.inputs]
            try:
                if adapted is not None:
                    node = adapted(node, [x.shape for x in read if isinstance(x, Tensor)])
                values[node.name] = self._added(node, read)
            except (
                RuntimeError,
                ValueError,
                TypeError,
                IndexError,
                ArithmeticError,
                AttributeError,
                KeyError,
            ) as error:
                reason = str(error).partition("\n")[0]
                raise FertoolError(
                    f"the graph does not fit together: node {shown(node.name)} ({node.op}): {reason}",
                    "make the file again",
                ) from None
            nodes.append(node)
        self.graph = replace(graph, nodes=tuple(nodes))
        self.steps = self._planned()

    def forward(self, x: Tensor) -> Tensor:
        """Return the graph's result for images [N, C, H, W]."""
        values: dict[str, Any] = {self.graph.input: self._read_as(self.graph.input, x)}
        for step in self.steps:
            read = [values[name] for name in step.inputs]
            result = step.run(*read, training=self.training) if step.random else step.run(*read)
            values[step.name] = self._read_as(step.name, result)
            for name in step.last_uses:
                del values[name]
        result_of_all: Tensor = values[self.graph.output]
        return result_of_all

    def _read_as(self, name: str, result: Any) -> Any:
        """Return what the readers of a result get, and show it to who listens."""
        tap = self._taps.get(name)
        result = result if tap is None else tap(result)
        if name in self.listeners:
            self.listeners[name](result)
        return result

    def layer(self, name: str) -> nn.Module | None:
        """Return the module of a node, None for nodes without one."""
        call = self._calls[name]
        return call if isinstance(call, nn.Module) else None

    def replace(self, name: str, layer: nn.Module) -> None:
        """Put another module where the layer of a node is."""
        self._add(name, layer)
        self._calls[name] = layer
        self.steps = self._planned()

    def insert_after(self, name: str, module: nn.Module) -> None:
        """Let the result of a node, or the images, pass through a module before it is read, a part of the network."""
        before = self._taps.pop(name, None)
        self._taps[name] = module
        if before is not None and before not in self._taps.values():
            self._modules = {key: part for key, part in self._modules.items() if part is not before}
        if all(part is not module for part in self.children()):
            # Names of nodes have dots, names of parts have none.
            self.add_module(f"tap {name}".replace(".", "/"), module)

    @property
    def inserted(self) -> Mapping[str, nn.Module]:
        """The modules that results pass through, by the names of the nodes."""
        return dict(self._taps)

    def with_inserted(self, modules: Mapping[str, nn.Module]) -> Network:
        """Return a copy of the network in which the results of some nodes pass through modules."""
        network = copy.deepcopy(self)
        for name, module in modules.items():
            network.insert_after(name, module)
        return network

    def eval_function(self, node: Node) -> Callable[..., Any]:
        """Return what computes a node in eval mode, for those who run a network node by node."""
        call = self._calls[node.name]
        return partial(call, training=False) if node.operator.random else call

    def _added(self, node: Node, read: list[Any]) -> Any:
        if node.operator.layer and not node.operator.inputs[1]:
            self._calls[node.name] = self._hold(node)
        elif node.operator.layer:
            layer = _found(node.operator.function)(node.args, *(x.shape for x in read))
            self._add(node.name, layer)
            self._calls[node.name] = layer
        else:
            args = {name: value for name, value in node.args.items() if value is not None}
            self._calls[node.name] = partial(_found(node.operator.function), **args)
        known = known_result(node, read)
        result = self.eval_function(node)(*read) if known is None else known
        self.shapes[node.name] = _shape_of_one(result) if read else tuple(result.shape)
        return result

    def _hold(self, node: Node) -> Callable[[], Tensor]:
        owner, name, tensor = (
            self._container(node.name),
            _leaf(node.name),
            torch.empty(node.args["shape"], device="meta"),
        )
        if _is_taken(owner, name):
            raise ValueError("the name is taken")
        if node.op == "parameter":
            owner.register_parameter(name, nn.Parameter(tensor))
        else:
            owner.register_buffer(name, tensor)
        return partial(getattr, owner, name)

    def _container(self, name: str) -> nn.Module:
        """Return the module in which what is called `name` stands; made where it is missing."""
        parent: nn.Module = self
        for part in name.split(".")[:-1]:
            child = parent._modules.get(part)
            if child is None:
                if _is_taken(parent, part):
                    raise ValueError(f"the name {shown(part)} is taken")
                child = nn.Module()
                parent.add_module(part, child)
            parent = child
        return parent

    def _add(self, name: str, layer: nn.Module) -> None:
        """Put a layer where its name says; what stands inside another one of this name, or a container, moves in."""
        owner, leaf = self._container(name), _leaf(name)
        before = owner._modules.pop(leaf, None)
        if _is_taken(owner, leaf) or (
            before is not None and name not in self._calls and _holds_tensors(before)
        ):
            raise ValueError("the name is taken")
        owner.add_module(leaf, layer)
        for key, part in before._modules.items() if before is not None else ():
            if key not in layer._modules:
                layer.add_module(key, part)

    def _planned(self) -> list[Step]:
        last_reader = {
            name: node.name for node in self.graph.nodes for name in (*node.inputs, node.name)
        }
        done: dict[str, list[str]] = {}
        for name, reader in last_reader.items():
            if name != self.graph.output:
                done.setdefault(reader, []).append(name)
        return [
            Step(
                node.name,
                self._calls[node.name],
                node.inputs,
                tuple(done.get(node.name, ())),
                node.operator.random,
            )
            for node in self.graph.nodes
        ]


def _shape_of_one(result: Any) -> tuple[int, ...]:
    """Return the shape of a result for one image, of several that of the first; raises ValueError for what is huge."""
    tensors = result if isinstance(result, tuple | list) else (result,)
    for tensor in tensors:
        if tensor.numel() > 2 * MAX_VALUES:
            raise ValueError(f"{tensor.numel() // 2:,} values for one image")
    return tuple(tensors[0].shape[1:])


def is_reserved(name: str) -> bool:
    """Return whether a layer cannot have this name: its first part is what networks have of their own."""
    first = name.partition(".")[0]
    return first in _OWN or first.startswith("tap ") or hasattr(Network, first)


def _is_taken(owner: nn.Module, name: str) -> bool:
    """Return whether a module has an attribute of this name, or will have."""
    return hasattr(owner, name) or (isinstance(owner, Network) and is_reserved(name))


def _holds_tensors(module: nn.Module) -> bool:
    return bool(module._parameters or module._buffers)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


@cache
def _found(path: str) -> Callable[..., Any]:
    """Return the function of a path."""
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
