"""Which channel goes where: every channel gets a number, and the network's own data movements carry the numbers.

The module is traced with torch.fx and run on an integer tensor in place of the image. Convolutions and linear layers
make new numbers, layers that work channel by channel or along the channels pass them on, additions and gates merge
them in pairs, and whatever only moves data (chunk, cat, shuffle, flatten, ...) is simply executed. No architecture is
known by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fertool.errors import FertoolError
from fertool.modes import eval_mode
from fertool.spec import InputSpec

_KEEPING_MODULES = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Tanh, nn.Sigmoid),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity, nn.Dropout, nn.Dropout2d),
}
_POOLING_MODULES = {nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d}
_MOVING_MODULES = {nn.Flatten, nn.Unflatten, nn.ChannelShuffle}

_KEEPING = {
    *("relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "tanh", "sigmoid", "hardswish"),
    *("hardsigmoid", "hardtanh", "clamp", "dropout", "dropout2d", "neg", "abs", "relu_", "sigmoid_", "clamp_"),
}
_POOLING = {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
_MERGING = {"add", "sub", "mul", "div", "truediv", "iadd", "isub", "imul", "itruediv", "add_", "sub_", "mul_", "div_"}
_MOVING = {
    *("chunk", "split", "cat", "concat", "view", "reshape", "transpose", "permute", "flatten", "unflatten", "unbind"),
    *("contiguous", "getitem", "size", "squeeze", "unsqueeze", "narrow", "clone", "channel_shuffle"),
}

Touching = tuple[tuple[str, bool], ...]
"""The layers that hold a channel, in running order: name, and whether on the output side."""

Segments = dict[Touching, list[int]]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with one weight, or a block of `taps` weights, per channel or per pair of channels.

    `inputs` and `outputs` hold the class of every channel, shapes [in] and [out]; depthwise convolutions and BN have
    the same ones on both sides. `positions` is the number of places of the output map, `per_output` the number of
    further parameters of an output channel (bias, BN scale and shift).

    Of the kind "across" is a convolution along the channels: it mixes neighbours, and all channels, the same on both
    sides, share its one block of weights.
    """

    name: str
    kind: Literal["dense", "depthwise", "norm", "across"]
    inputs: Tensor
    outputs: Tensor
    taps: int
    per_output: int
    positions: int

    @property
    def pairs(self) -> int:
        """Number of channel pairs that have weights."""
        return len(self.outputs) * (len(self.inputs) if self.kind == "dense" else 1)

    @property
    def params(self) -> int:
        """Learned values of the layer."""
        if self.kind == "across":
            return self.taps + self.per_output
        return self.taps * self.pairs + self.per_output * len(self.outputs)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The layers of a network in running order, and its channels in classes of merged identities.

    A class is what can be removed as one, with every (layer, axis, index) that holds its number. `inputs` are the
    classes of the image's channels, `fixed` [classes] marks those that must stay: image channels, logits, and masks
    that are broadcast over other channels.
    """

    layers: tuple[Layer, ...]
    inputs: Tensor
    fixed: Tensor

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image; equal to `fertool.cost.count` of the module."""
        return sum(layer.taps * layer.positions * layer.pairs for layer in self.layers)

    @property
    def params(self) -> int:
        """Learned values; equal to `fertool.cost.count` of the module."""
        return sum(layer.params for layer in self.layers)

    @property
    def stored(self) -> int:
        """Numbers that a file of the network stores: parameters, and mean and variance of BN."""
        return self.params + sum(2 * len(layer.outputs) for layer in self.layers if layer.kind == "norm")

    def segments(self) -> Segments:
        """Group the classes by the layers that make and read them; each list is in channel order.

        Classes of one segment are interchangeable, those of two are not: where a network splits its channels by
        position, a producer's channels fall into several segments.
        """
        touching: list[list[tuple[str, bool]]] = [[] for _ in range(len(self.fixed))]
        for layer in self.layers:
            for classes, is_output in ((layer.inputs, False), (layer.outputs, True)):
                for index in dict.fromkeys(classes.tolist()):
                    touching[index].append((layer.name, is_output))
        found: Segments = {}
        for index, layers in enumerate(touching):
            found.setdefault(tuple(layers), []).append(index)
        return found


def trace_channels(module: nn.Module, input: InputSpec) -> ChannelGraph:
    """Return the channel graph of a module, which may be on the meta device; the module is not changed.

    Raises FertoolError for a module that torch.fx cannot trace, and for a layer or operation, by its name, whose
    effect on channels is not known.
    """
    try:
        with eval_mode(module):
            traced = fx.Tracer().trace(module)
    except Exception as error:  # What tracing runs is the module's own forward, which may fail with anything.
        raise FertoolError(
            f"{type(module).__name__} cannot be traced: {error}", "write its forward without branches on tensor values"
        ) from error
    runner = _Identities(module, traced)
    ids = runner.new_ids(input.channels)
    runner.fixed += ids.tolist()
    with torch.no_grad():
        runner.run(_spread(ids, (input.size, input.size)))
    return runner.channel_graph(ids)


class _Identities(fx.Interpreter):
    """Runs a traced network on channel numbers: int64 [1, C, H, W], the same number over a whole channel map."""

    def __init__(self, module: nn.Module, traced: fx.Graph) -> None:
        super().__init__(module, graph=traced)
        self.extra_traceback = False
        self.node = ""
        self.parents: list[int] = []
        self.fixed: list[int] = []
        self.layers: dict[str, Layer] = {}

    def new_ids(self, count: int) -> Tensor:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def run_node(self, n: fx.Node) -> Any:
        self.node = n.name
        return super().run_node(n)

    def channel_graph(self, inputs: Tensor) -> ChannelGraph:
        """Number the classes in the order of their first channel and write the layers in these numbers."""
        roots = [self._root(i) for i in range(len(self.parents))]
        number = {root: k for k, root in enumerate(dict.fromkeys(roots))}
        classes = torch.tensor([number[root] for root in roots])
        fixed = torch.zeros(len(number), dtype=torch.bool)
        fixed[classes[self.fixed]] = True
        layers = (
            Layer(
                *(layer.name, layer.kind, classes[layer.inputs], classes[layer.outputs]),
                *(layer.taps, layer.per_output, layer.positions),
            )
            for layer in self.layers.values()
        )
        return ChannelGraph(tuple(layers), classes[inputs], fixed)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        raise self._unknown(f"the direct use of the tensor '{target}'")

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        for value in _tensors(args):
            self.fixed += torch.unique(value).tolist()
        return args[0]

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensors = _tensors((args, kwargs))
        if not tensors or target is getattr:
            result = target(*args, **kwargs)
            if not _tensors(result):
                return result
            raise self._unknown(f"the operation '{_name(target)}'")
        if target in _KEEPING_FUNCTIONS:
            return tensors[0]
        if target in _POOLING_FUNCTIONS:
            return self._pool(tensors[0], lambda x: target(x, *args[1:], **kwargs))
        if target in _MERGING_FUNCTIONS:
            return self._merge(tensors)
        if target is torch.mean:
            return self._mean(args, kwargs)
        if target in _MOVING_FUNCTIONS:
            return target(*args, **kwargs)
        raise self._unknown(f"the operation '{_name(target)}'")

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        tensors = _tensors((args, kwargs))
        if target in _KEEPING:
            return tensors[0]
        if target in _MERGING:
            return self._merge(tensors)
        if target == "mean":
            return self._mean(args, kwargs)
        if target in _MOVING or target == "dim":
            return getattr(args[0], target)(*args[1:], **kwargs)
        raise self._unknown(f"the operation '{target}'")

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module, kind, x = self.fetch_attr(target), type(self.fetch_attr(target)), args[0]
        if target in self.layers:
            raise FertoolError(
                f"cannot prune: layer '{target}' runs more than once", "give each use a layer of its own"
            )
        if kind is nn.Conv2d:
            return self._conv(target, module, x)
        if kind is nn.Linear:
            return self._linear(target, module, x)
        if kind in (nn.BatchNorm2d, nn.BatchNorm1d):
            ids = self._channels(x)
            self.layers[target] = Layer(target, "norm", ids, ids, 0, 2 if module.affine else 0, x[0, 0].numel())
            return x
        if kind in _KEEPING_MODULES:
            return x
        if kind in _POOLING_MODULES:
            return self._pool(x, module)
        if kind in _MOVING_MODULES:
            return module(x)
        raise self._unknown(f"the layer '{target}' ({kind.__module__}.{kind.__name__})")

    def _conv(self, name: str, layer: nn.Conv2d, x: Tensor) -> Tensor:
        taps = layer.weight.shape[2] * layer.weight.shape[3]
        window: Any = (layer.stride, layer.padding, layer.dilation)
        places = F.conv2d(_one_map(x), torch.zeros(1, 1, *layer.kernel_size), None, *window).shape[2:]
        per_output = int(layer.bias is not None)
        if layer.out_channels == 1 and places == x.shape[2:] and _is_channel_row(x):
            # Neighbours mix, but what stands at a place remains the value of the channel that stood there.
            self.layers[name] = Layer(name, "across", x.flatten(), x.flatten(), taps, per_output, 1)
            return x
        ids = self._channels(x)
        if layer.groups == 1:
            outputs = self.new_ids(layer.out_channels)
            self.layers[name] = Layer(name, "dense", ids, outputs, taps, per_output, places.numel())
            return _spread(outputs, places)
        if layer.groups == layer.in_channels == layer.out_channels:
            self.layers[name] = Layer(name, "depthwise", ids, ids, taps, per_output, places.numel())
            return _spread(ids, places)
        raise FertoolError(
            f"cannot prune: convolution '{name}' has {layer.groups} groups for {layer.in_channels} inputs and "
            f"{layer.out_channels} outputs",
            "dense and depthwise convolutions can be pruned",
        )

    def _linear(self, name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        if x.dim() != 2:
            raise self._unknown(f"a linear layer over {x.dim() - 1} axes ('{name}')")
        outputs = self.new_ids(layer.out_features)
        self.layers[name] = Layer(name, "dense", x[0], outputs, 1, int(layer.bias is not None), 1)
        return outputs[None]

    def _pool(self, x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
        return _spread(self._channels(x), pool(_one_map(x)).shape[2:])

    def _mean(self, args: Any, kwargs: Any) -> Tensor:
        kwargs = {key: value for key, value in kwargs.items() if key != "dtype"}
        highest: Tensor = torch.amax(*args, **kwargs)
        if not torch.equal(highest, torch.amin(*args, **kwargs)):
            raise self._unknown("a mean over several channels")
        return highest

    def _merge(self, tensors: list[Tensor]) -> Tensor:
        if len(tensors) == 1:
            return tensors[0]
        if {t.dim() for t in tensors} not in ({2}, {4}):
            raise self._unknown(f"arithmetic on tensors of {' and '.join(str(t.dim()) for t in tensors)} axes")
        wide, narrow = sorted(tensors, key=lambda t: -t.shape[1])
        shape, ids = (wide + narrow).shape, self._channels(wide)
        if narrow.shape[1] < wide.shape[1]:
            self.fixed += torch.unique(narrow).tolist()
        else:
            for a, b in zip(ids.tolist(), self._channels(narrow).tolist(), strict=True):
                self._union(a, b)
        return _spread(ids, shape[2:])

    def _channels(self, x: Tensor) -> Tensor:
        """Return the one number of each channel, shape [C]; an error where channels were mixed within a map."""
        flat = x[0].reshape(x.shape[1], -1)
        if x.shape[0] != 1 or not bool((flat == flat[:, :1]).all()):
            raise self._unknown("a map whose places belong to different channels")
        return flat[:, 0].clone()

    def _root(self, i: int) -> int:
        while self.parents[i] != i:
            self.parents[i] = self.parents[self.parents[i]]
            i = self.parents[i]
        return i

    def _union(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        self.parents[max(a, b)] = min(a, b)

    def _unknown(self, what: str) -> FertoolError:
        return FertoolError(
            f"cannot prune: what {what} does to channels is not known (graph node '{self.node}')",
            "use 2-D convolutions, linear layers, BN, element-wise functions, pools, sums, products, chunk, cat, views",
        )


def _functions(names: Iterable[str]) -> set[Callable[..., Any]]:
    return {getattr(space, name) for space in (torch, F, operator) for name in names if hasattr(space, name)}


_KEEPING_FUNCTIONS = _functions(_KEEPING)
_POOLING_FUNCTIONS = _functions(_POOLING)
_MERGING_FUNCTIONS = _functions(_MERGING)
_MOVING_FUNCTIONS = _functions(_MOVING)


def _spread(ids: Tensor, places: Iterable[int]) -> Tensor:
    """Return [1, C, *places] with the number of each channel at all its places, laid out as an activation would be."""
    places = tuple(places)
    return ids.reshape(1, -1, *[1] * len(places)).expand(1, -1, *places).contiguous()


def _is_channel_row(x: Tensor) -> bool:
    """Return whether the channels lie side by side in one map, as places."""
    return x.shape[1] == 1 and x.numel() == max(x.shape[2:]) and bool((x != x.flatten()[0]).any())


def _one_map(x: Tensor) -> Tensor:
    """Return a blank map as large as those of `x`, to see what size a layer makes of it."""
    return torch.zeros(1, 1, *x.shape[2:])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in _tensors(item)] if isinstance(value, list | tuple) else []


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", function))
