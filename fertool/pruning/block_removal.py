"""Depth pruning: removes the residual blocks whose absence changes the outputs least."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.graph.blocks import Block, find_blocks, without_block
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.inference import eval_mode
from fertool.pruning.latency_model import NO_LATENCY, LatencyModel
from fertool.pruning.planning import PrunePlan, all_outputs
from fertool.pruning.reconstruction import reconstruct
from fertool.spec import InputSpec, Spec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 64


@dataclass(frozen=True)
class BlockRemoval:
    """A network without one block, its spec, and the plan that leads to it."""

    spec: Spec
    module: Network
    plan: PrunePlan


def remove_block(
    spec: Spec,
    module: Network,
    data: FaceDataset,
    *,
    reconstruct_layers: bool,
    latency: LatencyModel = NO_LATENCY,
    kept: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> BlockRemoval:
    """Return the network without the residual block whose removal costs least.

    The cost is the mean of KL(network || network without the block) over the images of `data`,
    measured, not estimated. `reconstruct_layers` fits the remaining layers to their outputs of
    before; blocks with the channels of a group in `kept` stay. `module` is not changed. Raises
    FertoolError where no block can be removed.
    """
    before = trace_channels(module)
    candidates = _removable_blocks(module, before, kept)
    if not candidates:
        raise FertoolError(
            f"``prune_blocks``: {spec.arch} has no residual block left that can be removed",
            "ask for fewer, or leave it out",
        )
    costs = _removal_costs(module, candidates, data, spec.input, on_progress)
    # Of equal costs the first, so that the result depends on nothing else.
    least = min(range(len(costs)), key=costs.__getitem__)

    shorter = without_block(module, candidates[least])
    after = trace_channels(shorter)
    if reconstruct_layers:
        rows = {layer.name: torch.arange(len(layer.outputs)) for layer in after.layers}
        reconstruct(module, shorter, after, rows, data.images, spec.input)
    plan = PrunePlan.between(before, after, latency, kept=all_outputs(after))
    return BlockRemoval(replace(spec, graph=shorter.graph, metrics=None), shorter, plan)


def _removable_blocks(module: Network, graph: ChannelGraph, kept: Collection[str]) -> list[Block]:
    """Return the blocks without a group in `kept`."""
    removable = []
    for block in find_blocks(module):
        if _groups_within(block, graph).isdisjoint(kept):
            removable.append(block)
    return removable


def _groups_within(block: Block, graph: ChannelGraph) -> set[str]:
    """Return the groups whose channels are computed inside a block alone."""
    groups = find_groups(graph)
    inside = set(block.nodes)
    found = set()
    for name, layers in zip(groups.names, groups.layers, strict=True):
        if inside.issuperset(layers):
            found.add(name)
    return found


def _removal_costs(
    module: Network,
    blocks: list[Block],
    data: FaceDataset,
    input: InputSpec,
    on_progress: Callable[[int, int], None] | None,
) -> list[float]:
    """Return the KL divergence, in nats, that the removal of each block causes."""
    log_p = _log_probs(module, data, input)
    costs = []
    for number, block in enumerate(blocks, start=1):
        log_q = _log_probs(without_block(module, block), data, input)
        # KL(p || q): torch takes q first, and divides by the images with 'batchmean' alone.
        divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        costs.append(float(divergence))
        if on_progress:
            on_progress(number, len(blocks))
    return costs


@torch.no_grad()
def _log_probs(module: nn.Module, data: FaceDataset, input: InputSpec) -> Tensor:
    device = next(module.parameters()).device
    with eval_mode(module):
        batches = torch.split(data.images, affordable_batch(_BATCH, input.size))
        logits = []
        for batch in batches:
            logits.append(module(to_input(batch.to(device), input)))
    # Differences between blocks may be smaller than float32 resolves.
    return torch.cat(logits).double().log_softmax(1)
