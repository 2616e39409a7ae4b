"""Physical removal of channels: the same graph with smaller layers, holding the weights of the surviving channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.channels import ChannelGraph, Layer, weight_axes
from fertool.graph.groups import Groups, count_resized
from fertool.graph.ir import Node
from fertool.graph.network import Network


def resize(
    network: Network, graph: ChannelGraph, groups: Groups, sizes: Mapping[str, int]
) -> Network:
    """Return the network with other numbers of channels, without values: on the meta device.

    `graph` is that of `network`, `sizes` has one for each of the `groups`.
    """

    def count(classes: Tensor) -> int:
        return count_resized(classes, groups, sizes)

    def adapted(node: Node, shapes: Sequence[torch.Size]) -> Node:
        return _adapted(node, shapes, network, graph, count)

    return Network(network.graph, network.image, adapted)


def _adapted(
    node: Node,
    shapes: Sequence[torch.Size],
    network: Network,
    graph: ChannelGraph,
    count: Callable[[Tensor], int],
) -> Node:
    """Return a node with the arguments that speak of channels changed; `shapes` are those of what it reads now."""
    layer = graph.by_name.get(node.name)
    if node.name in graph.parts:
        sizes = [count(part) for part in graph.parts[node.name]]
        if node.op == "split":
            return node.with_args(sizes=tuple(sizes))
        return node.with_args(start=sizes[0], end=sizes[0] + sizes[1])
    if layer is None or node.op == "batch_norm":
        return node
    if layer.kind == "dense" and node.op == "linear":
        return node.with_args(out_features=count(layer.outputs))
    if layer.kind == "dense":
        return node.with_args(out_channels=count(layer.outputs))
    if layer.kind == "grouped":
        inner = len(layer.inputs) // node.args["groups"]
        groups = shapes[0][1] // inner
        return node.with_args(
            groups=groups, out_channels=groups * (len(layer.outputs) // node.args["groups"])
        )
    if node.op in ("parameter", "constant") and len(layer.outputs) > 1:
        shape = tuple(
            count(layer.outputs) if size == len(layer.outputs) else size
            for size in node.args["shape"]
        )
        return node.with_args(shape=shape)
    return node


def remove_channels(
    network: Network,
    graph: ChannelGraph,
    pruned: Network,
    pruned_graph: ChannelGraph,
    kept: Mapping[str, tuple[int, ...]],
) -> Network:
    """Fill `pruned`, a network on the meta device, with the surviving weights of `network`, and return it.

    `kept` names for each dense layer the original output channels in their new order; everything else follows from
    the channel graphs: an axis is indexed by the identities that arrive there. `network` is not changed.
    Raises FertoolError when the survivors would not reach every layer that they reached before.
    """
    survivors = _survivors(graph, pruned_graph, kept)
    rows = surviving_rows(graph, pruned_graph, kept)
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        if old.kind == "channel_conv" or len(new.outputs) == len(old.outputs) == 1:
            continue
        out_axis, in_axis = weight_axes(network.graph.by_name[old.name].op)
        for name in _tensors_of(state, old.name):
            is_weight = name == f"{old.name}.weight"
            axis = out_axis if is_weight else _channel_axis(state[name], len(old.outputs))
            if state[name].dim():
                state[name] = state[name].index_select(axis, rows[old.name].to(state[name].device))
        if old.kind == "dense":
            columns = find_positions(old.inputs, survivors[new.inputs], survivors, old.name)
            weight = f"{old.name}.weight"
            state[weight] = (
                state[weight].index_select(in_axis, columns.to(state[weight].device)).contiguous()
            )
    pruned.load_state_dict(state, assign=True)
    return pruned.train(network.training)


def surviving_rows(
    graph: ChannelGraph, pruned_graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return for each layer of the pruned network where its outputs stood in the original's; see `remove_channels`."""
    survivors = _survivors(graph, pruned_graph, kept)
    return {
        old.name: find_positions(old.outputs, survivors[new.outputs], survivors, old.name)
        for old, new in zip(graph.layers, pruned_graph.layers, strict=True)
    }


def _survivors(
    graph: ChannelGraph, pruned: ChannelGraph, kept: Mapping[str, tuple[int, ...]]
) -> Tensor:
    """Return the original class of every class of the pruned graph."""
    survivors = torch.full((len(pruned.fixed),), -1)
    # All that must stay is there, in the same order; no dense layer makes what comes out of an attention, for one.
    survivors[pruned.fixed] = graph.fixed.nonzero().flatten()
    for old, new in zip(graph.layers, pruned.layers, strict=True):
        if old.kind == "dense":
            survivors[new.outputs] = old.outputs[list(kept[old.name])]
        elif old.kind == "scale":
            _carry_over_(survivors, old, new)
    for old, new in zip(graph.layers, pruned.layers, strict=True):
        if old.kind == "dense" and not torch.equal(
            survivors[new.outputs], old.outputs[list(kept[old.name])]
        ):
            raise _broken(old.name)
    return survivors


def _carry_over_(survivors: Tensor, old: Layer, new: Layer) -> None:
    """Classes that no dense layer makes, such as those of tensors that stay, are the same in both graphs."""
    if len(old.outputs) == len(new.outputs):
        unknown = survivors[new.outputs] < 0
        survivors[new.outputs[unknown]] = old.outputs[unknown]


def find_positions(old: Tensor, wanted: Tensor, survivors: Tensor, layer: str) -> Tensor:
    """Return where the `wanted` classes stand on an axis of classes `old`; the n-th of a class is its n-th there.

    Raises FertoolError naming the layer unless `wanted` is all of `old` that is among the survivors.
    """
    stride = max(len(old), len(wanted)) + 1
    have, want = old * stride + _occurrence(old), wanted * stride + _occurrence(wanted)
    expected = have[torch.isin(old, survivors)]
    if not torch.equal(expected.sort().values, want.sort().values):
        raise _broken(layer)
    order = have.argsort()
    return order[torch.searchsorted(have[order], want)]


def _occurrence(classes: Tensor) -> Tensor:
    """Return how many equal entries stand before each entry."""
    order = classes.argsort(stable=True)
    ordered = classes[order]
    rank = torch.arange(len(classes)) - torch.searchsorted(ordered, ordered)
    return torch.empty_like(rank).scatter_(0, order, rank)


def _tensors_of(state: Mapping[str, Tensor], layer: str) -> list[str]:
    return [name for name in state if layer in (name, name.rpartition(".")[0])]


def _channel_axis(tensor: Tensor, channels: int) -> int:
    """Return the axis along which a tensor with one entry for each channel lies."""
    return next((axis for axis, size in enumerate(tensor.shape) if size == channels), 0)


def _broken(layer: str) -> FertoolError:
    return FertoolError(
        f"internal error: pruned channels do not line up at layer '{layer}'",
        "please report the network",
    )
