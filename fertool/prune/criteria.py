"""The importance of channels: from their weights, or from outputs on images.

Coupled channels, which share one id, have one score.

The gate of a channel is `φ = m γ`, a mask times the scale of the BN behind the layer that computes
it (PRJ thesis, 3.2). Since the derivative by γ sums gradient times normalized activation over the
map, `φ ∂L/∂φ = Σ_hw ∂L/∂y (y − β)` at the BN output y: one backward pass gives all gates of all
images. As in the source the shift β is no part of the gate: what a closed channel still adds
through β is constant, and the next layer's bias can absorb it. Where no BN stands behind the layers
that compute an id, the gate is the layer's whole output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.channels import weight_axes
from fertool.graph.network import Network
from fertool.inference import eval_mode
from fertool.losses import divergence_probe
from fertool.models.sampling import to_channels_first
from fertool.spec import InputSpec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 64
# Keeps a division by the mean importance of a layer of zeros finite.
_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of each channel id, float64 [ids].

    `additive`: the values add up over the network, as changes of the loss do; otherwise they only
    compare channels of one layer.
    """

    values: Tensor
    additive: bool


WeightMeasure = Callable[[Tensor, Tensor | None], Tensor | None]
"""From a layer's weights [out, fan-in] and the scales [out] of the BN behind it to scores [out].

The scales are None where there is no BN, the scores where the criterion has none for the layer.
"""
GateChanges = list[tuple[Tensor, Tensor]]
"""For each gate the ids [C] that it closes, and `φ ∂L/∂φ` of every image [N, C]."""


def _l1(weights: Tensor, scales: Tensor | None) -> Tensor:
    return weights.abs().sum(1)


def _l2(weights: Tensor, scales: Tensor | None) -> Tensor:
    return weights.square().sum(1).sqrt()


def _bn_gamma(weights: Tensor, scales: Tensor | None) -> Tensor | None:
    return None if scales is None else scales.abs()


def _l2_gamma(weights: Tensor, scales: Tensor | None) -> Tensor:
    norms = _l2(weights, scales)
    return norms if scales is None else norms * scales.abs()


# The criteria that need no data.
WEIGHT_CRITERIA: Mapping[str, WeightMeasure] = {
    # Li et al. 2017, arXiv 1608.08710, section 3.1.
    "l1": _l1,
    "l2": _l2,
    # Liu et al. 2017 (Network Slimming), arXiv 1708.06519.
    "bn-gamma": _bn_gamma,
    # Recipe 3.
    "l2-gamma": _l2_gamma,
}


def weight_scores(
    module: Network, graph: ChannelGraph, criterion: str, *, relative: bool = True
) -> Scores:
    """Return the score of each channel id by one of WEIGHT_CRITERIA; no data needed.

    If `relative`, a channel's score is divided by the mean of its layer, so that layers of any
    fan-in compare; else scores compare as they are, as in Network Slimming. An id computed or
    filtered by several layers scores the mean over them; of the BN scales only those that are gates
    count. Ids that no layer scores take their `l2` score, relative to their layer, in units of
    the mean of the others.
    """
    measure = WEIGHT_CRITERIA[criterion]
    scales = _norm_scales(module, graph)
    total = torch.zeros(len(graph.fixed), dtype=torch.float64)
    count = torch.zeros_like(total)

    for layer in graph.layers:
        if not _has_scored_weights(layer, criterion):
            continue
        values = measure(_filters(module, layer), scales.get(layer.name))
        if values is None:
            continue
        if relative:
            values = values / values.mean().clamp(min=_TINY)
        total.index_add_(0, layer.outputs, values)
        count.index_add_(0, layer.outputs, torch.ones_like(values))

    scores = total / count.clamp(min=1)
    unscored = count == 0
    # `l2` scores every layer that has weights: asking it again would never end.
    if criterion != "l2" and unscored.any():
        fallback = weight_scores(module, graph, "l2").values[unscored]
        unit = 1 if unscored.all() else scores[~unscored].mean()
        scores[unscored] = fallback * unit
    return Scores(scores, additive=not relative)


def _has_scored_weights(layer: Layer, criterion: str) -> bool:
    if layer.kind == "grouped":
        # The BN behind a depthwise convolution closes the same path as the one before it.
        return criterion != "bn-gamma"
    return layer.kind == "dense"


def _filters(module: Network, layer: Layer) -> Tensor:
    """Return the weights of a layer, float64 [out, fan-in] on the CPU."""
    weight = module.get_parameter(f"{layer.name}.weight").detach().to("cpu", torch.float64)
    # Transposed convolutions have their filters along the second axis.
    out_axis, _ = weight_axes(module.graph.by_name[layer.name].op)
    return weight.movedim(out_axis, 0).flatten(1)


def _norm_scales(module: Network, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the scales, float64, of the BN directly behind each layer that has one with scales."""
    scales = {}
    for name, norm in norms_behind(graph).items():
        if norm.per_output:
            scale = module.get_parameter(f"{norm.name}.weight")
            scales[name] = scale.detach().to("cpu", torch.float64)
    return scales


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


def _taylor_loss(logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def _divergence_loss(logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    return divergence_probe(logits, generator)


def _taylor(changes: GateChanges, ids: int) -> Tensor:
    """Sum |φ ∂L/∂φ| over images, L being the cross-entropy of one image.

    Equation 3-6 of the PRJ thesis. The equation is read as the sum of absolute values, not the
    absolute value of the sum: changes of opposite sign do not make a channel unimportant. Parallel
    gates of a residual stream add up.
    """
    scores = torch.zeros(ids, dtype=torch.float64)
    for closed, change in changes:
        scores.index_add_(0, closed, change.abs().sum(0).to("cpu", torch.float64))
    return scores


def _kl(changes: GateChanges, ids: int) -> Tensor:
    """Sum half the squared change of `u . z` over images.

    That is KL(network || network without the channels), to second order.

    The first order of KL is zero at the network's own weights, and labels are not needed. All gates
    of an id close at once, so that their changes are added before they are squared.
    """
    joint = torch.zeros(len(changes[0][1]), ids, dtype=torch.float64)
    for closed, change in changes:
        joint.index_add_(1, closed, change.to("cpu", torch.float64))
    return joint.square().sum(0) / 2


@dataclass(frozen=True)
class _GateCriterion:
    """The loss to differentiate, and how changes of gates become scores [ids].

    The loss is a function of logits [N, K], targets [N, K] and a generator.
    """

    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    aggregate: Callable[[GateChanges, int], Tensor]


# The criteria that need images.
GATE_CRITERIA: Mapping[str, _GateCriterion] = {
    "taylor": _GateCriterion(_taylor_loss, _taylor),
    "kl": _GateCriterion(_divergence_loss, _kl),
}


def gate_scores(
    module: Network,
    graph: ChannelGraph,
    criterion: str,
    data: FaceDataset,
    input: InputSpec,
    *,
    batch_size: int = _BATCH,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Return the score of each channel id by one of GATE_CRITERIA, summed over images.

    Each image takes one forward and one backward pass. BN uses its running statistics. Parameters
    are not changed; random directions come from `seed`.
    """
    chosen = GATE_CRITERIA[criterion]
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    scores = torch.zeros(len(graph.fixed), dtype=torch.float64)
    targets = data.targets()
    batch_size = affordable_batch(batch_size, input.size)

    with eval_mode(module), _record_gates(module, graph) as changes:
        for start in range(0, len(data), batch_size):
            part = slice(start, start + batch_size)
            # The images require gradients, or a network of frozen parameters would have no graph.
            images = to_input(data.images[part].to(device), input).requires_grad_()
            changes.clear()
            loss = chosen.loss(module(images), targets[part].to(device), generator)
            torch.autograd.grad(loss, images)
            scores += chosen.aggregate(changes, len(scores))
            if on_progress:
                on_progress(min(start + batch_size, len(data)), len(data))
    return Scores(scores, additive=True)


@contextmanager
def _record_gates(module: Network, graph: ChannelGraph) -> Iterator[GateChanges]:
    """Collect, in the list that is yielded, the changes of all gates in every backward pass."""
    changes: GateChanges = []
    hooks = []
    for layer in gated_layers(graph):
        hook = partial(_record_gate, changes, layer)
        hooks.append(module.get_submodule(layer.name).register_forward_hook(hook))
    try:
        yield changes
    finally:
        for handle in hooks:
            handle.remove()


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


def _record_gate(
    changes: GateChanges, layer: Layer, owner: nn.Module, _: Any, output: Tensor
) -> None:
    """Forward hook that appends `φ ∂L/∂φ` of a layer's gates in the backward pass."""
    # A copy, since an in-place activation may overwrite the output.
    gated = output.detach().clone()
    if layer.kind == "norm" and owner.bias is not None:
        bias = owner.get_parameter("bias").detach()
        gated -= bias.reshape(-1, *[1] * (output.dim() - 2))

    def append(gradient: Tensor) -> None:
        change = to_channels_first(owner, gradient * gated)
        if change.dim() > 2:
            change = change.flatten(2).sum(2)
        changes.append((layer.outputs, change))

    output.register_hook(append)  # type: ignore[no-untyped-call]
