"""Which channel goes where: every channel gets a number, and the network's own data movements carry the numbers.

The graph runs on an integer tensor in place of the image. Layers that mix channels make new
numbers, operators that work channel by channel pass them on, additions and products merge them in
pairs, and whatever only moves data is simply executed on them. Where the effect on channels is not
of these kinds the channels stay: nothing is removed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from fertool.graph.channel_ids import (
    FixedChannelsError,
    all_tensors,
    along,
    broadcast,
    is_broadcast_over,
    is_channel_row,
    spread,
    varying,
    without_repeats,
)
from fertool.graph.ir import Node
from fertool.graph.network import Network

ChannelUses = tuple[tuple[str, bool], ...]
"""What holds a channel, in running order: the name of a layer, and whether on its output side; or a part of a split."""

Segments = dict[ChannelUses, list[int]]
Kind = Literal["dense", "grouped", "norm", "scale", "channel_conv"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with one weight, or a block of `kernel_elements` weights, per channel or per pair of channels.

    `inputs` and `outputs` hold the class of every channel, shapes [in] and [out]. `positions` is
    the number of places of the output map, `per_output` the number of further parameters of an
    output channel (bias, scale, shift).

    dense: all inputs with all outputs. grouped: a convolution in groups, of which depthwise ones
    have one channel each; the channels of a group, read and made, are one class. norm: batch norm.
    scale: a parameter for each channel. channel_conv: a convolution along the channels, which mixes
    neighbours; all share its one block of weights.
    """

    name: str
    kind: Kind
    inputs: Tensor
    outputs: Tensor
    kernel_elements: int
    per_output: int
    positions: int

    @property
    def pairs(self) -> int:
        """Number of channel pairs that have weights."""
        return len(self.outputs) * (len(self.inputs) if self.kind == "dense" else 1)

    @property
    def params(self) -> int:
        """Learned values of the layer."""
        if self.kind == "channel_conv":
            return self.kernel_elements + self.per_output
        return self.kernel_elements * self.pairs + self.per_output * len(self.outputs)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The layers of a network in running order, and its channels in classes of merged identities.

    A class is what can be removed as one, with every (layer, axis, index) that holds its number.
    `inputs` are the classes of the image's channels, `fixed` [classes] marks those that must stay,
    `fixed_reasons` [classes] says why, `fixing_nodes` the same by the node where it shows. `parts`
    holds the classes of each part into which a node cuts its channels at given places,
    `equal_parts` those of each part where a node cuts or deals them into parts of equal size.
    """

    layers: tuple[Layer, ...]
    inputs: Tensor
    fixed: Tensor
    parts: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    equal_parts: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    fixing_nodes: Mapping[str, str] = field(default_factory=dict)
    fixed_reasons: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image; equal to `fertool.cost.count` of the module."""
        return sum(layer.kernel_elements * layer.positions * layer.pairs for layer in self.layers)

    @property
    def params(self) -> int:
        """Learned values; equal to `fertool.cost.count` of the module."""
        return sum(layer.params for layer in self.layers)

    @property
    def stored_values(self) -> int:
        """Numbers that a file of the network stores: parameters, and mean and variance of BN."""
        return self.params + sum(
            2 * len(layer.outputs) for layer in self.layers if layer.kind == "norm"
        )

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """The layers by their names."""
        return {layer.name: layer for layer in self.layers}

    def segments(self) -> Segments:
        """Group the classes by the layers that make and read them; each list is in channel order.

        Classes of one segment are interchangeable, those of two are not: where a network splits its
        channels by position, a producer's channels fall into several segments.
        """
        touching: list[list[tuple[str, bool]]] = [[] for _ in range(len(self.fixed))]
        for layer in self.layers:
            for classes, is_output in ((layer.inputs, False), (layer.outputs, True)):
                for index in dict.fromkeys(classes.tolist()):
                    touching[index].append((layer.name, is_output))
        for name, parts in (*self.parts.items(), *self.equal_parts.items()):
            for number, classes in enumerate(parts):
                for index in dict.fromkeys(classes.tolist()):
                    touching[index].append((f"{name}[{number}]", False))
        found: Segments = {}
        for index, layers in enumerate(touching):
            found.setdefault(tuple(layers), []).append(index)
        return found


def trace_channels(network: Network) -> ChannelGraph:
    """Return the channel graph of a network, which may be on the meta device; the network is not changed."""
    tracer = ChannelTracer(network)
    images = tracer.images()
    values: dict[str, Any] = {network.graph.input: images}
    for node in network.graph.nodes:
        values[node.name] = tracer.result(node, [values[name] for name in node.inputs])
    tracer.fix(values[network.graph.output], "outputs of the network")
    return tracer.channel_graph(along(images, 1))


def weight_axes(op: str) -> tuple[int, int]:
    """Return the axes of a layer's weight along which its outputs and its inputs lie."""
    return (1, 0) if op == "conv_transpose2d" else (0, 1)


class ChannelTracer:
    """Runs a graph node by node on channel numbers: int64 [1, …], laid out as activations are."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._parents: list[int] = []
        self._fixed: dict[int, str] = {}
        self._layers: list[Layer] = []
        self._parts: dict[str, tuple[Tensor, ...]] = {}
        self._equal: dict[str, tuple[Tensor, ...]] = {}
        self._why: dict[str, str] = {}

    def images(self) -> Tensor:
        """Return the numbers of the image's channels, which must stay, in the place of an image."""
        ids = self.new_ids(self._network.image[0])
        self.fix(ids, "channels of the image")
        return spread(ids, self._network.image[1:])

    def new_ids(self, count: int) -> Tensor:
        """Return as many new numbers, [count]."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def fix(self, ids: Tensor, why: str) -> None:
        """Mark channels as ones that must stay, and say why."""
        for number in torch.unique(ids).tolist():
            self._fixed.setdefault(number, why)

    def result(self, node: Node, read: list[Any]) -> Any:
        """Return the numbers of a node's result, of those that make several results a tuple."""
        try:
            return getattr(self, f"_{node.operator.channel_effect}")(node, read)
        except FixedChannelsError as reason:
            self._why[node.name] = str(reason)
            return self._fixes(node, read)

    def channel_graph(self, inputs: Tensor) -> ChannelGraph:
        """Number the classes in the order of their first channel and write the layers in these numbers."""
        roots = [self._root(i) for i in range(len(self._parents))]
        number = {root: k for k, root in enumerate(dict.fromkeys(roots))}
        classes = torch.tensor([number[root] for root in roots])
        fixed = torch.zeros(len(number), dtype=torch.bool)
        fixed[classes[sorted(self._fixed)]] = True
        reasons = [""] * len(number)
        for member, why in self._fixed.items():
            reasons[classes[member]] = reasons[classes[member]] or why
        layers = (
            Layer(
                *(layer.name, layer.kind, classes[layer.inputs], classes[layer.outputs]),
                *(layer.kernel_elements, layer.per_output, layer.positions),
            )
            for layer in self._layers
        )
        return ChannelGraph(
            tuple(layers),
            classes[inputs],
            fixed,
            {name: tuple(classes[part] for part in parts) for name, parts in self._parts.items()},
            {name: tuple(classes[part] for part in parts) for name, parts in self._equal.items()},
            self._why,
            tuple(reasons),
        )

    def _mixes(self, node: Node, read: list[Tensor]) -> Tensor:
        (x,) = read
        if node.op == "linear":
            return self._linear(node, x)
        places = torch.Size(self._network.shapes[node.name][1:])
        kernel, groups = node.args["kernel_size"], node.args["groups"]
        taps = kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
        outputs, bias = node.args["out_channels"], int(node.args["bias"])
        if outputs == 1 and places == x.shape[2:] and is_channel_row(x):
            # Neighbours mix, but what stands at a place remains the value of the channel that stood
            # there.
            self._layers.append(
                Layer(node.name, "channel_conv", x.flatten(), x.flatten(), taps, bias, 1)
            )
            return x
        ids = along(x, 1)
        # A transposed convolution multiplies each place of its input, not of its result.
        positions = (x.shape[2:] if node.op == "conv_transpose2d" else places).numel()
        if groups == 1:
            made = self.new_ids(outputs)
            self._layers.append(Layer(node.name, "dense", ids, made, taps, bias, positions))
            return spread(made, places)
        if node.op == "conv_transpose2d":
            raise FixedChannelsError("a transposed convolution in groups")
        inner = len(ids) // groups
        for group in ids.reshape(groups, inner).tolist():
            for member in group[1:]:
                self._union(group[0], member)
        made = ids[::inner].repeat_interleave(outputs // groups)
        self._layers.append(Layer(node.name, "grouped", ids, made, taps * inner, bias, positions))
        return spread(made, places)

    def _linear(self, node: Node, x: Tensor) -> Tensor:
        # Of a vector each entry counts: flattened maps have a number of places for each channel.
        ids = x[0] if x.dim() == 2 else along(x, x.dim() - 1)
        outputs = self.new_ids(node.args["out_features"])
        bias, positions = int(node.args["bias"]), x.numel() // x.shape[-1]
        self._layers.append(Layer(node.name, "dense", ids, outputs, 1, bias, positions))
        return outputs.expand(*x.shape[:-1], -1).contiguous()

    def _per_channel(self, node: Node, read: list[Tensor]) -> Tensor:
        if not read:
            return self._held(node)
        (x,) = read
        if node.op == "batch_norm":
            ids = along(x, 1)
            self._layers.append(
                Layer(node.name, "norm", ids, ids, 0, 2 * node.args["affine"], x[0, 0].numel())
            )
            return x
        if node.op == "prelu" and not node.args["shared"]:
            ids = along(x, 1)
            self._layers.append(Layer(node.name, "scale", ids, ids, 0, 1, x[0, 0].numel()))
            return x
        self._add_whole(node)
        if node.op == "prelu":
            return x
        self._why[node.name] = "it normalizes over the channels"
        self.fix(x, f"{node.name} normalizes over them")
        return x

    def _held(self, node: Node) -> Tensor:
        """A tensor with one axis has a number for each entry of it; what has more stays as it is."""
        shape = node.args["shape"]
        long = [axis for axis, size in enumerate(shape) if size > 1]
        if len(long) != 1:
            self._add_whole(node)
            whole = self.new_ids(1)
            self.fix(whole, f"{node.name} has them on several axes")
            return whole.expand(shape).contiguous()
        ids = self.new_ids(shape[long[0]])
        self._layers.append(Layer(node.name, "scale", ids, ids, 0, int(node.op == "parameter"), 1))
        return ids.reshape(shape)

    def _add_whole(self, node: Node) -> None:
        """Count the parameters of a layer that is not pruned."""
        parameters = dict(self._network.named_parameters())
        names = (node.name, f"{node.name}.weight", f"{node.name}.bias")
        count = sum(parameters[name].numel() for name in names if name in parameters)
        whole = self.new_ids(1)
        self.fix(whole, node.name)
        self._layers.append(Layer(node.name, "scale", whole, whole, 0, count, 1))

    def _elementwise(self, node: Node, read: list[Tensor]) -> Tensor:
        return read[0]

    def _couples(self, node: Node, read: list[Tensor]) -> Tensor:
        if len(read) == 1:
            return read[0]
        one, two = broadcast(*read)
        for narrow, wide in ((read[0], two), (read[1], one)):
            if is_broadcast_over(narrow, wide):
                # A mask over all channels, which depends on none of them.
                self.fix(narrow, f"{node.name} repeats it over the channels")
                return wide.contiguous()
        for a, b in set(
            zip(*(side.flatten().tolist() for side in without_repeats(one, two)), strict=True)
        ):
            self._union(a, b)
        return one.contiguous()

    def _spatial(self, node: Node, read: list[Tensor]) -> Tensor:
        (x,) = read
        if node.op in ("mean", "sum", "amax"):
            dims, keep = node.args["dim"], node.args["keepdim"]
            highest, lowest = torch.amax(x, dims, keep), torch.amin(x, dims, keep)
            if not torch.equal(highest, lowest):
                raise FixedChannelsError("it computes over the channels")
            return highest
        if x.dim() != 4 or (node.op == "pad" and len(node.args["pad"]) > 4):
            raise FixedChannelsError("it works along the channels")
        return spread(along(x, 1), self._network.shapes[node.name][1:])

    def _rearranges(self, node: Node, read: list[Any]) -> Any:
        if node.op == "pixel_shuffle":
            read = [self._one_for_each_block(read[0], node.args["upscale_factor"] ** 2)]
        if node.operator.axis_arguments is not None:
            self._note_sizes(node, read[0])
        moved = self._network.eval_function(node)(*read)
        return (
            moved
            if isinstance(moved, tuple)
            else moved.contiguous()
            if isinstance(moved, Tensor)
            else tuple(moved)
        )

    def _note_sizes(self, node: Node, x: Tensor) -> None:
        """Remember where the arguments of a node speak of channels; raise where other numbers would not do."""
        refers_by = node.operator.axis_arguments
        if refers_by == "shape":
            moved = self._network.eval_function(node)(x)
            literal = [axis for axis in varying(moved) if node.args["shape"][axis] > 1]
            if literal or (node.op == "reshape" and len(varying(moved)) > 1):
                raise FixedChannelsError("it lays out channels along several axes")
            return
        dim = node.args.get("dim", node.args.get("dims", (1,))[0] if node.op == "roll" else 1)
        if dim % x.dim() not in varying(x):
            return
        if refers_by == "indices" or node.args.get("step", 1) != 1:
            raise FixedChannelsError("it picks single channels")
        if refers_by == "part count":
            count = node.args["chunks" if node.op == "chunk" else "groups"]
            self._equal[node.name] = torch.chunk(along(x, dim % x.dim()), count)
        elif node.op == "split":
            parts = torch.split(x, list(node.args["sizes"]), dim)
            self._parts[node.name] = tuple(along(part, dim % x.dim()) for part in parts)
        else:
            ids = along(x, dim % x.dim())
            start, end, _ = slice(node.args["start"], node.args["end"]).indices(len(ids))
            self._parts[node.name] = (ids[:start], ids[start:end], ids[end:])

    def _one_for_each_block(self, x: Tensor, size: int) -> Tensor:
        """Make each block of so many channels, which become one, a class; return the map with one number for each."""
        blocks = along(x, 1).reshape(-1, size)
        for block in blocks.tolist():
            for member in block[1:]:
                self._union(block[0], member)
        return spread(blocks[:, :1].expand(-1, size).flatten(), x.shape[2:])

    def _fixes(self, node: Node, read: list[Any]) -> Any:
        """Keep all channels that a node reads and makes."""
        why = self._why.setdefault(node.name, f"what {node.op} does to channels is not known")
        for ids in all_tensors(read):
            self.fix(ids, f"{node.name}: {why}")
        if node.operator.channel_effect == "mixes":
            self._add_unpruned(node, read)
        elif node.operator.layer:
            self._add_whole(node)
        whole = self.new_ids(1)
        self.fix(whole, f"{node.name}: {why}")
        shape = self._network.shapes[node.name]
        if not node.operator.multi_output:
            return whole.expand(1, *shape).contiguous()
        # How many parts there are only a run tells.
        parts = self._network.eval_function(node)(read[0])
        return tuple(whole.expand(part.shape).contiguous() for part in parts)

    def _add_unpruned(self, node: Node, read: list[Tensor]) -> None:
        """Count a layer that mixes channels which all stay."""
        if node.op == "linear":
            inputs, outputs = read[0].shape[-1], self._network.shapes[node.name][-1]
            positions, taps = read[0].numel() // inputs, 1
        else:
            kernel = node.args["kernel_size"]
            inputs, outputs = read[0].shape[1] // node.args["groups"], node.args["out_channels"]
            taps = kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
            of = (
                read[0].shape[2:]
                if node.op == "conv_transpose2d"
                else self._network.shapes[node.name][1:]
            )
            positions = torch.Size(of).numel()
        whole = self.new_ids(1)
        self.fix(whole, f"{node.name}: {self._why[node.name]}")
        sides = whole.expand(inputs), whole.expand(outputs)
        self._layers.append(
            Layer(node.name, "dense", *sides, taps, int(node.args.get("bias", False)), positions)
        )

    def _root(self, i: int) -> int:
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def _union(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        self._parents[max(a, b)] = min(a, b)
