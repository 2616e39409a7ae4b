"""Recording the calls of PyTorch functions on tensors that depend on the images, as graph nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fertool.errors import FertoolError
from fertool.graph.ir import INPUT, Graph, Node, make_node
from fertool.graph.network import is_reserved
from fertool.graph.operators import OPERATORS
from fertool.graph.torch_calls import (
    TorchCall,
    UnsupportedCallError,
    function_name,
    returns_tensors,
)
from fertool.graph.torch_functions import CONVERTERS

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_STOCHASTIC_DEPTH = {"DropPath": "drop_prob", "StochasticDepth": "p"}
"""Modules of other libraries that drop branches in training, with the attribute of the rate."""


@dataclass
class Recording:
    """What one run has shown: nodes, the values of their tensors, and the name of the result."""

    nodes: list[Node]
    tensors: dict[str, Tensor]
    output: str

    def tensors_of(self, graph: Graph) -> dict[str, Tensor]:
        """Return the tensors that a graph needs, in the order of its nodes."""
        by_layer: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            layer = name
            if name not in graph.by_name:
                layer = name.rpartition(".")[0]
            by_layer.setdefault(layer, {})[name] = tensor

        needed: dict[str, Tensor] = {}
        for node in graph.nodes:
            if node.operator.layer:
                needed.update(by_layer[node.name])
        return needed


class Recorder(TorchFunctionMode):
    """Appends a node for every call of a torch function that depends on the images."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the parameters and buffers of a network by their names."""
        super().__init__()
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self._node_names: dict[int, str] = {}
        self._modified: set[int] = set()
        # Tensors are known by their `id`, which Python gives to another object once one is freed.
        self._kept_alive: list[Any] = []
        self._tensor_names: dict[int, str] = {}
        self._parameters: set[int] = set()
        for name, tensor in tensors.items():
            self._tensor_names[id(tensor)] = name
            if isinstance(tensor, nn.Parameter):
                self._parameters.add(id(tensor))
        self._used_names = {INPUT}
        self._module_stack: list[tuple[str, bool]] = [("", False)]

    def start(self, images: Tensor) -> None:
        """Begin with the images."""
        self._remember(images, INPUT)

    def finish(self, result: Any) -> Recording:
        """Return the recording; raises FertoolError for a result that does not use the images."""
        result = _first_result(result)
        name = None
        if isinstance(result, Tensor):
            name = self._node_names.get(id(result))
        if name is None or name == INPUT:
            raise FertoolError(
                "the network's result is not a tensor computed from the images", "return the logits"
            )
        return Recording(self.nodes, self.tensors, name)

    @property
    def module_path(self) -> str:
        """The path of the module that is running."""
        path, _ = self._module_stack[-1]
        return path

    @contextmanager
    def track_modules(self, module: nn.Module) -> Iterator[None]:
        """Know within the context which submodule is running."""
        with ExitStack() as hooks:
            for path, part in module.named_modules():
                enter = self._entering_hook(path, part)
                leave = self._leaving_hook(path, part)
                hooks.enter_context(part.register_forward_pre_hook(enter))
                hooks.enter_context(part.register_forward_hook(leave, always_call=False))
            yield

    def set_module(self, path: str, class_name: str) -> None:
        """Set the module that the next call of a program comes from."""
        is_container = class_name.endswith(("Sequential", "ModuleList"))
        is_operator = class_name.startswith("torch.nn.modules") and not is_container
        self._module_stack = [(path, is_operator)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._record(func, args, kwargs, result)
        return result

    def add(self, op: str, inputs: list[str], args: Mapping[str, Any], wanted: str = "") -> str:
        """Append a node; returns its name."""
        name = self._choose_name(op, wanted)
        self.nodes.append(make_node(name, op, inputs, **args))
        return name

    def tensor_name(self, tensor: Tensor) -> str | None:
        """Return the name of a parameter or buffer of the module; None for other tensors."""
        return self._tensor_names.get(id(tensor))

    def source(self, value: Any) -> str:
        """Return the name of the node that computed a tensor; other tensors become nodes."""
        if id(value) in self._node_names:
            return self._node_names[id(value)]
        if id(value) in self._modified:
            raise UnsupportedCallError("a tensor that was changed in place through a view of it")
        if not isinstance(value, Tensor):
            raise UnsupportedCallError(f"a {type(value).__name__} where a tensor was expected")
        return self._add_tensor(value)

    def _choose_name(self, op: str, wanted: str) -> str:
        """Return an unused name for a node: `wanted`, or that of the module that is running."""
        base = _without_reserved_start(wanted or self._default_name(op))
        # A layer is a module of the network, which can have no node inside its name.
        separator = "." if OPERATORS[op].inputs[1] else "_"
        name = base
        count = 1
        while name in self._used_names:
            if wanted and count == 1 and self._is_layer(base):
                raise UnsupportedCallError(
                    f"the layer '{wanted}' runs more than once; give each use a layer of its own"
                )
            name = f"{base}{separator}{count}"
            count += 1
        self._used_names.add(name)
        return name

    def _default_name(self, op: str) -> str:
        path, is_operator = self._module_stack[-1]
        if not path:
            return op
        if is_operator:
            return path
        return f"{path}.{op}"

    def _is_layer(self, name: str) -> bool:
        return any(node.name == name and node.operator.layer for node in self.nodes)

    def _remember(self, value: Any, name: str) -> None:
        """Know which node computed a value."""
        self._node_names[id(value)] = name
        self._kept_alive.append(value)

    def _add_tensor(self, value: Tensor) -> str:
        if not value.is_floating_point():
            dtype = str(value.dtype).removeprefix("torch.")
            raise UnsupportedCallError(f"a tensor of {dtype} that is not an image")

        op = "parameter" if id(value) in self._parameters else "constant"
        wanted = self.tensor_name(value) or ""
        name = self.add(op, [], {"shape": tuple(value.shape)}, wanted)
        self.tensors[name] = value
        self._remember(value, name)
        return name

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        if not self._depends_on_images(args, kwargs) or not returns_tensors(result):
            return
        name = function_name(func)
        converter = CONVERTERS.get(name)
        if converter is None:
            raise UnsupportedCallError(f"the function '{name}' is not in the operator table")

        node = converter(TorchCall(self, name, args, kwargs, result))
        self._kept_alive.append(result)
        if isinstance(result, tuple | list):
            for index, part in enumerate(result):
                item = self.add("getitem", [node], {"index": index}, f"{node}.{index}")
                self._remember(part, item)
            return
        if args and result is args[0] and result._base is not None:
            # In place on a view: what the view is of has other values now, which no node has.
            self._modified.add(id(result._base))
            self._node_names.pop(id(result._base), None)
        self._node_names[id(result)] = node

    def _depends_on_images(self, args: Any, kwargs: Any) -> bool:
        for value in _tensors_in((args, kwargs)):
            if id(value) in self._node_names or id(value) in self._modified:
                return True
        return False

    def _entering_hook(self, path: str, part: nn.Module) -> Callable[..., None]:
        of_torch = type(part).__module__.startswith("torch.nn.modules")
        is_operator = of_torch and not isinstance(part, _CONTAINERS)

        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._module_stack.append((path, is_operator))

        return enter

    def _leaving_hook(self, path: str, part: nn.Module) -> Callable[..., Any]:
        attribute = _STOCHASTIC_DEPTH.get(type(part).__name__, "")

        def leave(_module: nn.Module, inputs: Any, result: Any) -> Any:
            probability = float(vars(part).get(attribute) or 0)
            # In eval mode these modules return their input and call nothing that could be recorded.
            if probability and result is inputs[0]:
                result = self._add_stochastic_depth(inputs[0], probability, path)
            self._module_stack.pop()
            return result

        return leave

    def _add_stochastic_depth(self, x: Tensor, probability: float, path: str) -> Tensor:
        # A new object, so that readers of the result are told from readers of the input.
        with torch._C.DisableTorchFunction():
            result = x.view_as(x)
        name = self.add("stochastic_depth", [self.source(x)], {"p": probability}, path)
        self._remember(result, name)
        return result


def _first_result(result: Any) -> Any:
    """Return the first of the results of nested tuples, lists and dictionaries.

    Networks with more than one head are deployed with the first.
    """
    while isinstance(result, tuple | list | dict) and result:
        if isinstance(result, dict):
            result = list(result.values())
        result = result[0]
    return result


def _without_reserved_start(name: str) -> str:
    """Return a name that does not begin with an attribute of every module, such as `forward`."""
    if not is_reserved(name):
        return name
    first, dot, rest = name.partition(".")
    return f"{first}_{dot}{rest}"


def _tensors_in(value: Any) -> Iterator[Tensor]:
    # Arguments nest: `cat` has a list of tensors, indexing a tuple.
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors_in(part)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
