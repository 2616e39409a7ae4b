"""Physical removal: the same network at smaller widths, holding the weights of the surviving channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.prune.graph import ChannelGraph


def remove_channels(
    module: nn.Module,
    graph: ChannelGraph,
    pruned: nn.Module,
    pruned_graph: ChannelGraph,
    kept: Mapping[str, tuple[int, ...]],
) -> nn.Module:
    """Fill `pruned`, a skeleton on the meta device, with the surviving weights of `module`, and return it.

    `kept` names for each dense layer the original output channels in their new order; everything else follows from
    the graphs: an axis is indexed by the identities that arrive there. `module` is not changed.
    Raises FertoolError when the survivors would not reach every layer that they reached before.
    """
    survivors = _survivors(graph, pruned_graph, kept)
    rows = surviving_rows(graph, pruned_graph, kept)
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for old, new in zip(graph.layers, pruned_graph.layers, strict=True):
        if old.kind == "across":
            continue
        for name in _tensors_of(state, old.name):
            if state[name].dim():
                state[name] = state[name][rows[old.name]]
        if old.kind == "dense":
            columns = positions(old.inputs, survivors[new.inputs], survivors, old.name)
            state[f"{old.name}.weight"] = state[f"{old.name}.weight"][:, columns].contiguous()
    pruned.load_state_dict(state, assign=True)
    return pruned.train(module.training)


def surviving_rows(
    graph: ChannelGraph, pruned_graph: ChannelGraph, kept: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """Return for each layer of the pruned network where its outputs stood in the original's; see `remove_channels`."""
    survivors = _survivors(graph, pruned_graph, kept)
    return {
        old.name: positions(old.outputs, survivors[new.outputs], survivors, old.name)
        for old, new in zip(graph.layers, pruned_graph.layers, strict=True)
    }


def _survivors(graph: ChannelGraph, pruned: ChannelGraph, kept: Mapping[str, tuple[int, ...]]) -> Tensor:
    """Return the original class of every class of the pruned graph."""
    survivors = torch.full((len(pruned.fixed),), -1)
    survivors[pruned.inputs] = graph.inputs
    for old, new in zip(graph.layers, pruned.layers, strict=True):
        if old.kind == "dense":
            survivors[new.outputs] = old.outputs[list(kept[old.name])]
    for old, new in zip(graph.layers, pruned.layers, strict=True):
        if old.kind == "dense" and not torch.equal(survivors[new.outputs], old.outputs[list(kept[old.name])]):
            raise _broken(old.name)
    return survivors


def positions(old: Tensor, wanted: Tensor, survivors: Tensor, layer: str) -> Tensor:
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
    return [name for name in state if name.rpartition(".")[0] == layer]


def _broken(layer: str) -> FertoolError:
    return FertoolError(
        f"internal error: pruned channels do not line up at layer '{layer}'", "please report the architecture"
    )
