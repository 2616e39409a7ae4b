"""Depth: whole residual blocks go whose absence changes the answers least."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.models import build
from fertool.modes import eval_mode
from fertool.prune.graph import trace_channels
from fertool.prune.latency import NO_TIME, LatencyModel
from fertool.prune.planning import PrunePlan
from fertool.prune.reconstruct import reconstruct
from fertool.spec import InputSpec, Spec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 64


@dataclass(frozen=True)
class Shallower:
    """A network without one block, its spec, and the plan that leads to it."""

    spec: Spec
    module: nn.Module
    plan: PrunePlan


def remove_block(
    spec: Spec,
    module: nn.Module,
    data: FaceDataset,
    *,
    repair: bool,
    latency: LatencyModel = NO_TIME,
    kept: Collection[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> Shallower:
    """Return the network without the residual block whose removal costs least; `module` is not changed.

    The cost is the mean of KL(network || network without the block) over the images of `data`, measured, not estimated.
    `repair` makes the layers behind it say again what they said before; blocks with a width in `kept` stay. Raises
    FertoolError where no block can go.
    """
    candidates = {path: keys for path, keys in open_blocks(spec, module).items() if not {*keys} & {*kept}}
    if not candidates:
        raise FertoolError(
            f"--prune-blocks: {spec.arch} has no residual block left that could go", "ask for fewer, or leave it out"
        )
    wanted, costs = _log_probs(module, data, spec.input), []
    for number, keys in enumerate(candidates.values(), start=1):
        shorter = _without(spec, module, keys)[1]
        found = _log_probs(shorter, data, spec.input)
        costs.append(float(F.kl_div(found, wanted, reduction="batchmean", log_target=True)))
        if on_progress:
            on_progress(number, len(candidates))
    least = min(range(len(costs)), key=costs.__getitem__)
    shallower, shorter = _without(spec, module, list(candidates.values())[least])
    before, after = (trace_channels(network, spec.input) for network in (module, shorter))
    if repair:
        rows = {layer.name: torch.arange(len(layer.outputs)) for layer in after.layers}
        reconstruct(module, shorter, after, rows, data.images, spec.input)
    plan = PrunePlan.between(
        *(before, after, latency),
        widths_before=dict(spec.widths),
        widths=dict(shallower.widths),
        kept={layer.name: tuple(range(len(layer.outputs))) for layer in after.layers if layer.kind == "dense"},
        targets=None,
        round_to=1,
    )
    return Shallower(shallower, shorter, plan)


def open_blocks(spec: Spec, module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the blocks that can go and have not yet, by their paths, with the width keys that are their own."""
    blocks: Mapping[str, tuple[str, ...]] = getattr(module, "blocks", {})
    return {path: keys for path, keys in blocks.items() if all(spec.widths[key] for key in keys)}


def _without(spec: Spec, module: nn.Module, keys: tuple[str, ...]) -> tuple[Spec, nn.Module]:
    shallower = replace(spec, widths={**spec.widths, **dict.fromkeys(keys, 0)}, metrics=None)
    with torch.device("meta"):
        shorter = build(shallower)
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    shorter.load_state_dict({name: state[name] for name in shorter.state_dict()}, assign=True)
    return shallower, shorter.train(module.training)


@torch.no_grad()
def _log_probs(module: nn.Module, data: FaceDataset, input: InputSpec) -> Tensor:
    device = next(module.parameters()).device
    with eval_mode(module):
        batches = torch.split(data.images, affordable_batch(_BATCH, input.size))
        parts = [module(to_input(batch.to(device), input)) for batch in batches]
    return torch.cat(parts).double().log_softmax(1)
