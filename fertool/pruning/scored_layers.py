"""The layers whose channels are scored, and the BN behind them."""

from __future__ import annotations

import torch

from fertool.graph.channel_graph import ChannelGraph, Layer


def norms_behind(graph: ChannelGraph) -> dict[str, Layer]:
    """Return the BN directly behind each layer that has one."""
    norms = {}
    for before, layer in zip(graph.layers, graph.layers[1:], strict=False):
        if layer.kind != "norm" or before.kind == "norm":
            continue
        # The next layer in running order may stand on another branch: the ids tell.
        if torch.equal(layer.inputs, before.outputs):
            norms[before.name] = layer
    return norms


def gated_layers(graph: ChannelGraph) -> list[Layer]:
    """Return the gated layers: the BN behind each dense layer, else the dense layer itself.

    A BN behind a depthwise convolution closes the same path once more and would count it twice.
    """
    dense = dense_layers(graph)
    norms = norms_behind(graph)
    gates = []
    gated = torch.zeros(len(graph.fixed), dtype=torch.bool)
    for layer in dense:
        if layer.name in norms:
            gate = norms[layer.name]
            gates.append(gate)
            gated[gate.outputs] = True
    # Only now is it known which ids no BN gates at all.
    ungated = [layer for layer in dense if not gated[layer.outputs].any()]
    return gates + ungated


def dense_layers(graph: ChannelGraph) -> list[Layer]:
    """Return the convolutions, but for those in groups, and the linear layers."""
    return [layer for layer in graph.layers if layer.kind == "dense"]
