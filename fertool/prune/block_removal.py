"""Depth: whole residual blocks go whose absence changes the answers least."""

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
from fertool.modes import eval_mode
from fertool.prune.latency_model import NO_TIME, LatencyModel
from fertool.prune.planning import PrunePlan
from fertool.prune.reconstruction import reconstruct
from fertool.spec import InputSpec, Spec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 64


@dataclass(frozen=True)
class Shallower:
    """A network without one block, its spec, and the plan that leads to it."""

    spec: Spec
    module: Network
    plan: PrunePlan


def remove_block(
    spec: Spec,
    module: Network,
    data: FaceDataset,
    *,
    repair: bool,
    latency: LatencyModel = NO_TIME,
    kept: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Shallower:
    """Return the network without the residual block whose removal costs least; `module` is not changed.

    The cost is the mean of KL(network || network without the block) over the images of `data`, measured, not estimated.
    `repair` makes the layers behind it say again what they said before; blocks in which a group of `kept` has its
    channels stay. Raises FertoolError where no block can go.
    """
    before = trace_channels(module)
    candidates = [
        block for block in find_blocks(module) if not _groups_within(block, before) & {*kept}
    ]
    if not candidates:
        raise FertoolError(
            f"--prune-blocks: {spec.arch} has no residual block left that could go",
            "ask for fewer, or leave it out",
        )
    wanted, costs = _log_probs(module, data, spec.input), []
    for number, block in enumerate(candidates, start=1):
        found = _log_probs(without_block(module, block), data, spec.input)
        costs.append(float(F.kl_div(found, wanted, reduction="batchmean", log_target=True)))
        if on_progress:
            on_progress(number, len(candidates))
    least = min(range(len(costs)), key=costs.__getitem__)
    shorter = without_block(module, candidates[least])
    after = trace_channels(shorter)
    if repair:
        rows = {layer.name: torch.arange(len(layer.outputs)) for layer in after.layers}
        reconstruct(module, shorter, after, rows, data.images, spec.input)
    plan = PrunePlan.between(
        *(before, after, latency),
        kept={
            layer.name: tuple(range(len(layer.outputs)))
            for layer in after.layers
            if layer.kind == "dense"
        },
        targets=None,
        round_to=1,
    )
    return Shallower(replace(spec, graph=shorter.graph, metrics=None), shorter, plan)


def _groups_within(block: Block, graph: ChannelGraph) -> set[str]:
    """Return the groups whose channels are made inside a block alone."""
    groups, inside = find_groups(graph), set(block.nodes)
    return {
        name
        for name, layers in zip(groups.names, groups.layers, strict=True)
        if inside.issuperset(layers)
    }


@torch.no_grad()
def _log_probs(module: nn.Module, data: FaceDataset, input: InputSpec) -> Tensor:
    device = next(module.parameters()).device
    with eval_mode(module):
        batches = torch.split(data.images, affordable_batch(_BATCH, input.size))
        parts = [module(to_input(batch.to(device), input)) for batch in batches]
    return torch.cat(parts).double().log_softmax(1)
