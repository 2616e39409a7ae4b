"""Removal of channels: the same graph with smaller layers and the surviving weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.channels import weight_axes
from fertool.graph.groups import Groups, count_resized
from fertool.graph.ir import Node
from fertool.graph.network import Network, clone_tensors

_UNKNOWN = -1


def resize(
    network: Network, graph: ChannelGraph, groups: Groups, sizes: Mapping[str, int]
) -> Network:
    """Return the network with other numbers of channels, on the meta device, without values.

    `graph` is the channel graph of `network`; `sizes` has the new size of each of the `groups`.
    """

    def count(ids: Tensor) -> int:
        return count_resized(ids, groups, sizes)

    def adapt(node: Node, shapes: Sequence[torch.Size]) -> Node:
        return _resize_node(node, shapes, graph, count)

    return Network(network.graph, network.image, adapt)


def _resize_node(
    node: Node,
    shapes: Sequence[torch.Size],
    graph: ChannelGraph,
    count: Callable[[Tensor], int],
) -> Node:
    """Return a node with other numbers of channels; `shapes` are those of its resized inputs."""
    if node.name in graph.parts:
        return _resize_parts(node, [count(ids) for ids in graph.parts[node.name]])

    layer = graph.by_name.get(node.name)
    if layer is None:
        return node
    if layer.kind == "dense" and node.op == "linear":
        return node.with_args(out_features=count(layer.outputs))
    if layer.kind == "dense":
        return node.with_args(out_channels=count(layer.outputs))
    if layer.kind == "grouped":
        return _resize_groups(node, layer, input_channels=shapes[0][1])
    if node.op in ("parameter", "constant") and len(layer.outputs) > 1:
        return _resize_tensor(node, layer, count)
    return node


def _resize_parts(node: Node, sizes: list[int]) -> Node:
    if node.op == "split":
        return node.with_args(sizes=tuple(sizes))
    # A slice has three parts: what is before it, the slice itself, and what is behind it.
    before, inside, _ = sizes
    return node.with_args(start=before, end=before + inside)


def _resize_groups(node: Node, layer: Layer, *, input_channels: int) -> Node:
    """Return a grouped convolution with fewer groups, each of the same size as before."""
    group_inputs = len(layer.inputs) // node.args["groups"]
    group_outputs = len(layer.outputs) // node.args["groups"]
    groups = input_channels // group_inputs
    return node.with_args(groups=groups, out_channels=groups * group_outputs)


def _resize_tensor(node: Node, layer: Layer, count: Callable[[Tensor], int]) -> Node:
    """Return a tensor outside layers with another number of channels along its one long axis."""
    channels = len(layer.outputs)
    shape = []
    for size in node.args["shape"]:
        shape.append(count(layer.outputs) if size == channels else size)
    return node.with_args(shape=tuple(shape))


def remove_channels(
    network: Network,
    graph: ChannelGraph,
    pruned: Network,
    pruned_graph: ChannelGraph,
    kept: Mapping[str, tuple[int, ...]],
) -> Network:
    """Fill `pruned`, a network on the meta device, with surviving weights, and return it.

    `kept` has for each dense layer the indices of the surviving output channels in their new order.
    All other indices follow from the channel graphs. `network` is not changed. Raises FertoolError
    if a layer would not get all surviving channels that it had.
    """
    survivors = _original_ids(graph, pruned_graph, kept)
    rows = surviving_rows(graph, pruned_graph, kept)
    state = clone_tensors(network.state_dict())

    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        has_one_channel = len(old.outputs) == 1 and len(new.outputs) == 1
        if old.kind == "channel_conv" or has_one_channel:
            continue
        out_axis, in_axis = weight_axes(network.graph.by_name[old.name].op)
        _select_rows_(state, old, out_axis, rows[old.name])

        if old.kind == "dense":
            columns = find_positions(old.inputs, survivors[new.inputs], survivors, old.name)
            weight = f"{old.name}.weight"
            # Contiguous, since files hold tensors in the layout that they have.
            state[weight] = _select(state[weight], in_axis, columns).contiguous()

    pruned.load_state_dict(state, assign=True)
    return pruned.train(network.training)


def _select_rows_(state: dict[str, Tensor], layer: Layer, out_axis: int, rows: Tensor) -> None:
    """Keep some output channels in all tensors of a layer, in place."""
    for name in _tensor_names(state, layer.name):
        tensor = state[name]
        # Counters of batch norms have no axis.
        if tensor.dim() == 0:
            continue
        is_weight = name == f"{layer.name}.weight"
        axis = out_axis if is_weight else _channel_axis(tensor, len(layer.outputs))
        state[name] = _select(tensor, axis, rows)


def _select(tensor: Tensor, axis: int, indices: Tensor) -> Tensor:
    return tensor.index_select(axis, indices.to(tensor.device))


def surviving_rows(
    graph: ChannelGraph, pruned_graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return for each layer the indices of its surviving output channels in the original.

    The arguments are those of `remove_channels`.
    """
    survivors = _original_ids(graph, pruned_graph, kept)
    rows = {}
    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        rows[old.name] = find_positions(old.outputs, survivors[new.outputs], survivors, old.name)
    return rows


def _original_ids(
    graph: ChannelGraph, pruned_graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]
) -> Tensor:
    """Return the original id of every channel id of the pruned graph, [ids of the pruned graph]."""
    survivors = torch.full((len(pruned_graph.fixed),), _UNKNOWN)
    # Fixed channels are in both graphs, in the same order. Some have no dense layer that outputs
    # them, such as those of an attention.
    survivors[pruned_graph.fixed] = graph.fixed.nonzero().flatten()

    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        if old.kind == "dense":
            survivors[new.outputs] = old.outputs[list(kept[old.name])]
        elif old.kind == "scale":
            _carry_over_(survivors, old, new)

    _check_survivors(survivors, graph, pruned_graph, kept)
    return survivors


def _carry_over_(survivors: Tensor, old: Layer, new: Layer) -> None:
    """Write the ids that no dense layer outputs, such as those of tensors outside layers.

    They are the same in both graphs.
    """
    if len(old.outputs) == len(new.outputs):
        unknown = survivors[new.outputs] == _UNKNOWN
        survivors[new.outputs[unknown]] = old.outputs[unknown]


def _check_survivors(
    survivors: Tensor,
    graph: ChannelGraph,
    pruned_graph: ChannelGraph,
    kept: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise FertoolError where layers of one group keep different channels.

    They write to the same survivors, so that the last of them would win.
    """
    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        if old.kind != "dense":
            continue
        expected = old.outputs[list(kept[old.name])]
        if not torch.equal(survivors[new.outputs], expected):
            raise _misaligned(old.name)


def find_positions(old: Tensor, wanted: Tensor, survivors: Tensor, layer: str) -> Tensor:
    """Return the indices of the `wanted` ids on an axis with the ids `old`.

    The n-th occurrence of an id is looked up as its n-th occurrence on the axis. Raises
    FertoolError naming the layer unless `wanted` is all of `old` that is among the survivors.
    """
    # Ids can occur several times on an axis. Numbered by id and occurrence, all entries differ.
    stride = max(len(old), len(wanted)) + 1
    have = old * stride + _occurrence(old)
    want = wanted * stride + _occurrence(wanted)
    expected = have[torch.isin(old, survivors)]
    if not torch.equal(expected.sort().values, want.sort().values):
        raise _misaligned(layer)

    order = have.argsort()
    return order[torch.searchsorted(have[order], want)]


def _occurrence(ids: Tensor) -> Tensor:
    """Return how many equal entries stand before each entry."""
    order = ids.argsort(stable=True)
    in_order = ids[order]
    first_equal = torch.searchsorted(in_order, in_order)
    rank = torch.arange(len(ids)) - first_equal
    return torch.empty_like(rank).scatter_(0, order, rank)


def _tensor_names(state: Mapping[str, Tensor], layer: str) -> list[str]:
    """Return the names of a layer's tensors, or of the one tensor that is the layer."""
    names = []
    for name in state:
        owner = name.rpartition(".")[0]
        if layer in (name, owner):
            names.append(name)
    return names


def _channel_axis(tensor: Tensor, channels: int) -> int:
    """Return the first axis of a tensor with one entry per channel."""
    for axis, size in enumerate(tensor.shape):
        if size == channels:
            return axis
    return 0


def _misaligned(layer: str) -> FertoolError:
    return FertoolError(
        f"internal error: pruned channels do not line up at layer '{layer}'",
        "please report the network",
    )
