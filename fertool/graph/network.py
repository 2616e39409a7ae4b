"""A graph as a module that runs, trains and holds the tensors."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.graph.ir import Graph, Node
from fertool.graph.operators import OPERATORS
from fertool.graph.shapes import known_result
from fertool.strict_json import shown

MAX_VALUES = 1 << 27
"""Values that any result may have for one image."""
_BUILD_IMAGES = 2
"""Images for which a network is built; an axis of size 1 would broadcast where it must not."""
ImageShape = tuple[int, int, int]
"""Channels, height and width."""
# Attributes that instances of networks, and of quantized ones, have beside those of the class: a
# layer of such a name would replace them.
_RESERVED = (
    "graph",
    "image",
    "steps",
    "shapes",
    "values_per_image",
    "listeners",
    "training",
    "grids",
    "quantizers",
    "float_params",
    "learned",
)
_INSERTED_PREFIX = "tap "
"""What the names of inserted modules start with."""
_MISFIT_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    ArithmeticError,
    AttributeError,
    KeyError,
)
"""What PyTorch raises for arguments and shapes that do not fit each other."""
AdaptNode = Callable[[Node, Sequence[torch.Size]], Node]
"""Returns a node with other arguments, given the shapes of its inputs."""


@dataclass(frozen=True)
class NodeCall:
    """One node, ready to run: its function, its inputs, and the results that it is last to use."""

    name: str
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    last_uses: tuple[str, ...]
    random: bool


class Network(nn.Module):
    """A graph and its tensors; maps images [N, C, H, W] to the graph's result.

    Layers are submodules under the names of their nodes, so that tensors keep the names that they
    had in the module or file that the network comes from. `image` is the shape of one image,
    `shapes` are those of all results without the axis of the images; `values_per_image` counts all
    values of a result, also where other axes were joined with that of the images. `steps` are the
    nodes ready to run. A module can be inserted behind a node (`insert_after`); `listeners` are
    called with the results of nodes.
    """

    def __init__(self, graph: Graph, image: ImageShape, adapt: AdaptNode | None = None) -> None:
        """Build the network on the meta device; `adapt` may change each node before it is added.

        Raises FertoolError naming the first node that does not fit its inputs.
        """
        super().__init__()
        self.graph = graph
        self.image = image
        self.steps: list[NodeCall] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.values_per_image = {graph.input: math.prod(image)}
        self.listeners: dict[str, Callable[[Tensor], object]] = {}
        self._calls: dict[str, Callable[..., Any]] = {}
        self._inserted: dict[str, nn.Module] = {}

        images = torch.empty(_BUILD_IMAGES, *image, device="meta")
        values: dict[str, Any] = {graph.input: images}
        nodes = []
        for node in graph.nodes:
            inputs = [values[name] for name in node.inputs]
            try:
                added = node if adapt is None else adapt(node, _shapes_of_tensors(inputs))
                values[node.name] = self._add_node(added, inputs)
            except _MISFIT_ERRORS as error:
                raise _misfit(node, error) from None
            nodes.append(added)

        self.graph = replace(graph, nodes=tuple(nodes))
        self.steps = self._plan_calls()

    def forward(self, x: Tensor) -> Tensor:
        """Return the graph's result for images [N, C, H, W]."""
        values: dict[str, Any] = {self.graph.input: self._publish(self.graph.input, x)}
        for step in self.steps:
            inputs = [values[name] for name in step.inputs]
            mode = {"training": self.training} if step.random else {}
            result = step.run(*inputs, **mode)
            values[step.name] = self._publish(step.name, result)
            # Memory peaks at the largest set of results that are still to be read.
            for name in step.last_uses:
                del values[name]
        output: Tensor = values[self.graph.output]
        return output

    def _publish(self, name: str, result: Any) -> Any:
        """Return what the readers of a result get, and call its listener."""
        module = self._inserted.get(name)
        if module is not None:
            result = module(result)
        if name in self.listeners:
            self.listeners[name](result)
        return result

    def layer(self, name: str) -> nn.Module | None:
        """Return the module of a node, None for nodes without one."""
        call = self._calls[name]
        return call if isinstance(call, nn.Module) else None

    def replace(self, name: str, layer: nn.Module) -> None:
        """Replace the layer of a node by another module."""
        self._add_layer(name, layer)
        self._calls[name] = layer
        self.steps = self._plan_calls()

    def insert_after(self, name: str, module: nn.Module) -> None:
        """Let the result of a node, or the images, pass through a module before they are read.

        The module becomes part of the network; it replaces an earlier one, and may stand behind
        several nodes.
        """
        previous = self._inserted.pop(name, None)
        self._inserted[name] = module
        if previous is not None:
            self._unregister_unused(previous)

        # One that stands behind several nodes is registered once, under the first of them.
        if module not in self.children():
            # Names of nodes have dots, names of submodules have none.
            self.add_module(f"{_INSERTED_PREFIX}{name}".replace(".", "/"), module)

    def _unregister_unused(self, module: nn.Module) -> None:
        if module in self._inserted.values():
            return
        for name, part in list(self._modules.items()):
            if part is module:
                del self._modules[name]

    @property
    def inserted(self) -> Mapping[str, nn.Module]:
        """The inserted modules by the names of the nodes that they stand behind."""
        return dict(self._inserted)

    def with_inserted(self, modules: Mapping[str, nn.Module]) -> Network:
        """Return a copy of the network with modules inserted behind the nodes of these names."""
        network = copy.deepcopy(self)
        for name, module in modules.items():
            network.insert_after(name, module)
        return network

    def eval_function(self, node: Node) -> Callable[..., Any]:
        """Return the function that computes a node in eval mode, to run a network node by node."""
        call = self._calls[node.name]
        return partial(call, training=False) if node.operator.random else call

    def _add_node(self, node: Node, inputs: list[Any]) -> Any:
        """Add a node, and return its result on the meta device."""
        self._calls[node.name] = self._node_function(node, inputs)

        result = known_result(node, inputs)
        if result is None:
            result = self.eval_function(node)(*inputs)
        if inputs:
            self.shapes[node.name] = _shape_for_one_image(result)
            self.values_per_image[node.name] = as_results(result)[0].numel() // _BUILD_IMAGES
        else:
            # A tensor outside layers is the same for all images, and has no axis for them.
            self.shapes[node.name] = tuple(result.shape)
            self.values_per_image[node.name] = result.numel()
        return result

    def _node_function(self, node: Node, inputs: list[Any]) -> Callable[..., Any]:
        """Return the function that computes a node; registers the tensors that it needs."""
        operator = node.operator
        has_inputs = operator.inputs[1] > 0
        if operator.layer and not has_inputs:
            return self._add_tensor(node)

        if operator.layer:
            (x,) = inputs
            layer = build_layer(node.op, node.args, x.shape)
            self._add_layer(node.name, layer)
            return layer
        return bind_function(node.op, node.args)

    def _add_tensor(self, node: Node) -> Callable[[], Tensor]:
        """Add a parameter or a constant, and return the function that reads it."""
        owner = self._container(node.name)
        name = _last_part(node.name)
        tensor = torch.empty(node.args["shape"], device="meta")
        if _is_taken(owner, name):
            raise ValueError("the name is taken")
        if node.op == "parameter":
            owner.register_parameter(name, nn.Parameter(tensor))
        else:
            owner.register_buffer(name, tensor)
        # Not the tensor itself: loading a state replaces it.
        return partial(getattr, owner, name)

    def _container(self, name: str) -> nn.Module:
        """Return the module that holds what has this name; created if it is missing."""
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

    def _add_layer(self, name: str, layer: nn.Module) -> None:
        """Register a layer under its name, with the submodules of what had the name before.

        That is a container of layers inside this one, which were added earlier, or the layer that
        this one replaces.
        """
        owner = self._container(name)
        last_part = _last_part(name)
        previous = owner._modules.pop(last_part, None)
        is_replaced = name in self._calls
        is_other_layer = previous is not None and _holds_tensors(previous) and not is_replaced
        if is_other_layer or _is_taken(owner, last_part):
            raise ValueError("the name is taken")

        owner.add_module(last_part, layer)
        if previous is not None:
            _adopt_submodules_(layer, previous)

    def _plan_calls(self) -> list[NodeCall]:
        """Return the nodes ready to run, each with the results that are not needed after it."""
        last_uses: dict[str, list[str]] = {}
        for name, reader in _last_readers(self.graph).items():
            if name != self.graph.output:
                last_uses.setdefault(reader, []).append(name)

        calls = []
        for node in self.graph.nodes:
            call = NodeCall(
                name=node.name,
                run=self._calls[node.name],
                inputs=node.inputs,
                last_uses=tuple(last_uses.get(node.name, ())),
                random=node.operator.random,
            )
            calls.append(call)
        return calls


def _last_readers(graph: Graph) -> dict[str, str]:
    """Return for each result the last node that reads it, or its own node if none does."""
    found = {}
    for node in graph.nodes:
        for name in (*node.inputs, node.name):
            found[name] = node.name
    return found


def clone_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors without gradients, by the same names."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def load_tensors_(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Give a network the tensors that it has, by their names, out of more tensors."""
    own = {name: tensors[name] for name in network.state_dict()}
    network.load_state_dict(own, assign=True)


def _misfit(node: Node, error: Exception) -> FertoolError:
    # PyTorch's messages go on with a stack or with advice after their first line.
    reason = str(error).partition("\n")[0]
    return FertoolError(
        f"the graph does not fit together: node {shown(node.name)} ({node.op}): {reason}",
        "create the file again",
    )


def _shapes_of_tensors(values: Sequence[Any]) -> list[torch.Size]:
    # Tuples of results have no shape, and only `getitem` reads them.
    return [value.shape for value in values if isinstance(value, Tensor)]


def _shape_for_one_image(result: Any) -> tuple[int, ...]:
    """Return the shape of a result for one image; of a tuple of results, that of the first.

    Raises ValueError for results that are too large.
    """
    tensors = as_results(result)
    for tensor in tensors:
        if tensor.numel() > _BUILD_IMAGES * MAX_VALUES:
            raise ValueError(f"{tensor.numel() // _BUILD_IMAGES:,} values for one image")
    return tuple(tensors[0].shape[1:])


def is_reserved(name: str) -> bool:
    """Return whether the first part of a layer's name is an attribute of networks."""
    first = name.partition(".")[0]
    return first in _RESERVED or first.startswith(_INSERTED_PREFIX) or hasattr(Network, first)


def _is_taken(owner: nn.Module, name: str) -> bool:
    """Return whether a module has an attribute of this name, or will have."""
    return hasattr(owner, name) or (isinstance(owner, Network) and is_reserved(name))


def _adopt_submodules_(layer: nn.Module, previous: nn.Module) -> None:
    """Register the submodules of one module, in place, at the one that replaces it."""
    for key, part in previous._modules.items():
        if key not in layer._modules:
            layer.add_module(key, part)


def _holds_tensors(module: nn.Module) -> bool:
    return bool(module._parameters or module._buffers)


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def build_layer(op: str, args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return the module of an operator with tensors, on the meta device."""
    layer: nn.Module = _resolve(OPERATORS[op].function)(args, input_shape)
    return layer


def bind_function(op: str, args: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function of an operator without tensors, with its arguments."""
    # None is an argument that is not given: `torch.add` refuses `other=None`.
    given = {name: value for name, value in args.items() if value is not None}
    return partial(_resolve(OPERATORS[op].function), **given)


def as_results(value: Any) -> tuple[Any, ...]:
    """Return the results of a node as a tuple, also where there is only one."""
    if isinstance(value, tuple | list):
        return tuple(value)
    return (value,)


# Importing a module by its path and reading an attribute takes longer than the rest of adding a
# node.
@cache
def _resolve(path: str) -> Callable[..., Any]:
    """Return the function with a dotted path."""
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found
