"""Which layers of a network can be pruned and which can be integers, and what prevents the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.counting import layer_macs
from fertool.graph.folding import fold_for_inference
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.models.float_prefix import plan_quantizers
from fertool.results import LayerSurvey
from fertool.spec import InputSpec


@dataclass(frozen=True)
class Survey:
    """A sentence about the whole, and what can be done with each layer that has weights."""

    summary: str
    layers: tuple[LayerSurvey, ...]


def survey(network: Network, input: InputSpec) -> Survey:
    """Return what pruning and quantization can do with each layer of a float network.

    Layers are convolutions and linear layers.
    """
    graph = trace_channels(network)
    prunable: set[str] = set()
    for names in find_groups(graph).layers:
        prunable.update(names)
    # Folded, since a layer and its norm become one integer layer.
    integer = plan_quantizers(fold_for_inference(network), input).layer_inputs

    layers: list[LayerSurvey] = []
    for node in network.graph.nodes:
        if node.operator.channel_effect != "mixes":
            continue
        layer = graph.by_name[node.name]
        is_prunable = node.name in prunable
        # Channels of a grouped convolution are in no group, and can be removed all the same.
        if layer.kind == "grouped" and not _is_fixed(graph, node.name):
            is_prunable = True
        layers.append(
            LayerSurvey(
                name=node.name,
                operator=node.op,
                channels=len(layer.outputs),
                params=layer.params,
                macs=layer_macs(network, node),
                prunable=is_prunable,
                stays_because=_fixed_reason(graph, node.name),
                integer=node.name in integer,
            )
        )
    return Survey(_summarize(layers), tuple(layers))


def _is_fixed(graph: ChannelGraph, name: str) -> bool:
    """Whether none of the channels that a layer computes can be removed."""
    return bool(graph.fixed[graph.by_name[name].outputs].all())


def _fixed_reason(graph: ChannelGraph, name: str) -> str | None:
    """Return why no channel that a layer computes can be removed; None where some can."""
    if not _is_fixed(graph, name):
        return None
    outputs = graph.by_name[name].outputs
    return graph.fixed_reasons[int(outputs[0])] or None


def _summarize(layers: Sequence[LayerSurvey]) -> str:
    macs = sum(layer.macs for layer in layers)
    prunable = [layer for layer in layers if layer.prunable]
    integer = [layer for layer in layers if layer.integer]
    return (
        f"{len(prunable)} of {len(layers)} layers can be pruned "
        f"({_percent_of_macs(prunable, macs)} of the MACs), "
        f"{len(integer)} can be integers ({_percent_of_macs(integer, macs)})"
    )


def _percent_of_macs(layers: Sequence[LayerSurvey], total: int) -> str:
    macs = sum(layer.macs for layer in layers)
    return f"{100 * macs / max(1, total):.0f} %"
