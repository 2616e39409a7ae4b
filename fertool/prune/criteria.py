"""How much each class of channels matters: by its weights, or by what the network says about images.

The gate of a channel is `φ = m γ`, a mask times the scale of the BN behind the layer that makes it (PRJ thesis, 3.2).
Since the derivative by γ sums gradient times normalised activation over the map, `φ ∂L/∂φ = Σ_hw ∂L/∂y (y − β)` at the
BN output y: one backward pass gives all gates of all images. As in the source the shift β is no part of the gate: what
a closed channel still adds through β is constant, and the next layer's bias can learn it. Where no BN stands behind the
layers that make a class, the gate is the layer's whole output.
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
from fertool.losses import divergence_probe
from fertool.models.patches import with_channels_second
from fertool.modes import eval_mode
from fertool.spec import InputSpec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of each class, float64 [classes].

    `additive`: the values add up over the network, as changes of the loss do; otherwise they only compare channels
    of one layer.
    """

    values: Tensor
    additive: bool


Measure = Callable[[Tensor, Tensor | None], Tensor | None]
"""Of a layer's weights [out, fan-in] and the scales [out] of the BN behind it, if there is one: [out] numbers.

None where the layer has no say.
"""
Changes = list[tuple[Tensor, Tensor]]
"""For each gate the classes [C] that it closes, and `φ ∂L/∂φ` of every image [N, C]."""


def _l2(weights: Tensor) -> Tensor:
    return weights.square().sum(1).sqrt()


def _l2_gamma(weights: Tensor, scales: Tensor | None) -> Tensor:
    return _l2(weights) if scales is None else _l2(weights) * scales.abs()


WEIGHT_CRITERIA: Mapping[str, Measure] = {
    # Li et al. 2017, arXiv 1608.08710, section 3.1.
    "l1": lambda weights, scales: weights.abs().sum(1),
    "l2": lambda weights, scales: _l2(weights),
    # Liu et al. 2017 (Network Slimming), arXiv 1708.06519.
    "bn-gamma": lambda weights, scales: None if scales is None else scales.abs(),
    # Recipe 3.
    "l2-gamma": _l2_gamma,
}
"""Those that need no data."""


def weight_scores(
    module: Network, graph: ChannelGraph, criterion: str, *, relative: bool = True
) -> Scores:
    """Return what one of WEIGHT_CRITERIA gives each class; no data needed.

    If `relative`, a channel's number is divided by the mean of its layer, so that layers of any fan-in compare; else
    numbers compare as they are, as in Network Slimming. A class made or filtered by several layers scores the mean
    over them; of the scales those count that are gates. Classes of which no layer has a say score by `l2`, relative
    to their layer, in units of the mean of the others.
    """
    measure, scales = WEIGHT_CRITERIA[criterion], _scales(module, graph)
    total, count = torch.zeros(2, len(graph.fixed), dtype=torch.float64)
    for layer in graph.layers:
        if layer.kind == "dense" or (layer.kind == "grouped" and criterion != "bn-gamma"):
            weight = module.get_parameter(f"{layer.name}.weight").detach().to("cpu", torch.float64)
            out_axis, _ = weight_axes(module.graph.by_name[layer.name].op)
            weights = weight.movedim(out_axis, 0).flatten(1)
            found = measure(weights, scales.get(layer.name))
            if found is None:
                continue
            total.index_add_(
                0, layer.outputs, found / found.mean().clamp(min=1e-300) if relative else found
            )
            count.index_add_(0, layer.outputs, torch.ones_like(found))
    scores, silent = total / count.clamp(min=1), count == 0
    if criterion != "l2" and silent.any():
        scores[silent] = weight_scores(module, graph, "l2").values[silent] * (
            1 if silent.all() else scores[~silent].mean()
        )
    return Scores(scores, additive=not relative)


def _scales(module: Network, graph: ChannelGraph) -> dict[str, Tensor]:
    """Return the scales, float64, of the BN straight behind each layer that has one with scales."""
    return {
        name: module.get_parameter(f"{norm.name}.weight").detach().to("cpu", torch.float64)
        for name, norm in norms_behind(graph).items()
        if norm.per_output
    }


def norms_behind(graph: ChannelGraph) -> dict[str, Layer]:
    """Return the BN straight behind each layer that has one."""
    return {
        before.name: layer
        for before, layer in zip(graph.layers, graph.layers[1:], strict=False)
        if layer.kind == "norm"
        and before.kind != "norm"
        and torch.equal(layer.inputs, before.outputs)
    }


def _taylor_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def _taylor(changes: Changes, classes: int) -> Tensor:
    """Sum |φ ∂L/∂φ| over images (equation 3-6 of the PRJ thesis), L being the cross-entropy of one image.

    The sum of absolute values, not the absolute value of the sum, is how the equation is read here: changes of
    opposite sign do not make a channel unimportant. Parallel gates of a residual stream add up.
    """
    scores = torch.zeros(classes, dtype=torch.float64)
    for closed, change in changes:
        scores.index_add_(0, closed, change.abs().sum(0).to("cpu", torch.float64))
    return scores


def _kl(changes: Changes, classes: int) -> Tensor:
    """Sum half the squared change of `u . z` over images: KL(network || network without the class), to second order.

    The first order of KL is nothing at the network's own weights, and labels are not needed. All gates of a class
    close at once, so that their changes are added before they are squared.
    """
    joint = torch.zeros(len(changes[0][1]), classes, dtype=torch.float64)
    for closed, change in changes:
        joint.index_add_(1, closed, change.to("cpu", torch.float64))
    return joint.square().sum(0) / 2


@dataclass(frozen=True)
class _GateCriterion:
    """What is differentiated, given logits [N, K], targets [N, K] and a generator, and what comes of the changes."""

    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    tally: Callable[[Changes, int], Tensor]


GATE_CRITERIA: Mapping[str, _GateCriterion] = {
    "taylor": _GateCriterion(
        lambda logits, targets, generator: _taylor_loss(logits, targets), _taylor
    ),
    "kl": _GateCriterion(
        lambda logits, targets, generator: divergence_probe(logits, generator), _kl
    ),
}
"""Those that look at images."""


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
    """Return what one of GATE_CRITERIA gives each class, summed over images: one forward and one backward pass each.

    BN uses its running statistics. Parameters are not changed; random directions come from `seed`.
    """
    device, chosen = next(module.parameters()).device, GATE_CRITERIA[criterion]
    scores, generator = (
        torch.zeros(len(graph.fixed), dtype=torch.float64),
        torch.Generator().manual_seed(seed),
    )
    targets = data.targets()
    batch_size = affordable_batch(batch_size, input.size)
    with eval_mode(module), _gates_of(module, graph) as changes:
        for start in range(0, len(data), batch_size):
            part = slice(start, start + batch_size)
            # The images require gradients so that a network with frozen parameters has a graph, too.
            images = to_input(data.images[part].to(device), input).requires_grad_()
            changes.clear()
            torch.autograd.grad(
                chosen.loss(module(images), targets[part].to(device), generator), images
            )
            scores += chosen.tally(changes, len(scores))
            if on_progress:
                on_progress(min(start + batch_size, len(data)), len(data))
    return Scores(scores, additive=True)


@contextmanager
def _gates_of(module: Network, graph: ChannelGraph) -> Iterator[Changes]:
    """Collect, in the list that is given, what every backward pass says of the gates."""
    changes: Changes = []
    hooks = [
        module.get_submodule(layer.name).register_forward_hook(partial(_watch, changes, layer))
        for layer in gated_layers(graph)
    ]
    try:
        yield changes
    finally:
        for hook in hooks:
            hook.remove()


def gated_layers(graph: ChannelGraph) -> list[Layer]:
    """Return the layers whose outputs are gated: the BN behind each dense layer, else the dense layer itself.

    A BN behind a depthwise convolution closes the same path once more and would count it twice.
    """
    dense, norms = [layer for layer in graph.layers if layer.kind == "dense"], norms_behind(graph)
    gates = [norms[layer.name] for layer in dense if layer.name in norms]
    gated = torch.zeros(len(graph.fixed), dtype=torch.bool)
    for gate in gates:
        gated[gate.outputs] = True
    return gates + [layer for layer in dense if not gated[layer.outputs].any()]


def _watch(changes: Changes, layer: Layer, owner: nn.Module, _: Any, output: Tensor) -> None:
    gated = output.detach().clone()  # an in-place activation may overwrite the output
    if layer.kind == "norm" and owner.bias is not None:
        gated -= owner.bias.detach().reshape(-1, *[1] * (output.dim() - 2))  # type: ignore[operator]

    def add(gradient: Tensor) -> None:
        change = with_channels_second(owner, gradient * gated)
        changes.append((layer.outputs, change.flatten(2).sum(2) if change.dim() > 2 else change))

    output.register_hook(add)  # type: ignore[no-untyped-call]
