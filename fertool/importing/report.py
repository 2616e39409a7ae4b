"""What can be done with a network: which layers can be pruned, which can be integers, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.counting import layer_macs
from fertool.graph.folding import fold_for_inference
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.models.entrance import rounded_sites
from fertool.spec import InputSpec


@dataclass(frozen=True)
class Survey:
    """A sentence about the whole, and for each layer with weights a map of plain values."""

    summary: str
    layers: list[dict[str, Any]]


def survey(network: Network, input: InputSpec) -> Survey:
    """Return what pruning and quantization can do with each convolution and linear layer of a float network."""
    graph = trace_channels(network)
    prunable = {name for names in find_groups(graph).layers for name in names}
    integer = rounded_sites(fold_for_inference(network), input).layer_inputs
    layers = []
    for node in network.graph.nodes:
        if node.operator.channel_effect != "mixes":
            continue
        layer = graph.by_name[node.name]
        grouped = layer.kind == "grouped"
        layers.append(
            {
                "name": node.name,
                "operator": node.op,
                "channels": len(layer.outputs),
                "params": layer.params,
                "macs": layer_macs(network, node),
                "prunable": node.name in prunable
                or (grouped and not bool(graph.fixed[layer.outputs].all())),
                "stays_because": _reason(graph, node.name),
                "integer": node.name in integer,
            }
        )
    return Survey(_summary(layers), layers)


def _reason(graph: ChannelGraph, name: str) -> str | None:
    """Return why the channels that a layer makes stay, if all of them do."""
    outputs = graph.by_name[name].outputs
    if not bool(graph.fixed[outputs].all()):
        return None
    return graph.fixed_reasons[int(outputs[0])] or None


def _summary(layers: list[dict[str, Any]]) -> str:
    macs = sum(layer["macs"] for layer in layers)
    prunable, integer = (
        [layer for layer in layers if layer[key]] for key in ("prunable", "integer")
    )
    whole = max(1, macs)
    return (
        f"{len(prunable)} of {len(layers)} layers can be pruned ({_percent(prunable, whole)} of the MACs), "
        f"{len(integer)} can be integers ({_percent(integer, whole)})"
    )


def _percent(layers: list[dict[str, Any]], whole: int) -> str:
    return f"{100 * sum(layer['macs'] for layer in layers) / whole:.0f} %"
