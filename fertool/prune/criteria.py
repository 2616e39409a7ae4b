"""How much each class of channels matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.modes import eval_mode
from fertool.prune.graph import ChannelGraph, Layer
from fertool.spec import InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of each class, float64 [classes].

    `additive`: the values are changes of the loss and add up over the network; otherwise they only compare channels
    of one layer.
    """

    values: Tensor
    additive: bool


def l1_scores(module: nn.Module, graph: ChannelGraph) -> Scores:
    """Return the L1 norm of each class's filters; no data needed.

    A filter's norm (Li et al. 2017, arXiv 1608.08710, section 3.1) is divided by the mean of its layer, so that layers
    of any fan-in compare; a class made or filtered by several layers scores the mean over them.
    """
    total, count = torch.zeros(2, len(graph.fixed), dtype=torch.float64)
    for layer in graph.layers:
        if layer.kind in ("dense", "depthwise"):
            norms = module.get_parameter(f"{layer.name}.weight").detach().to("cpu", torch.float64).flatten(1)
            norms = norms.abs().sum(1)
            total.index_add_(0, layer.outputs, norms / norms.mean().clamp(min=1e-300))
            count.index_add_(0, layer.outputs, torch.ones_like(norms))
    return Scores(total / count.clamp(min=1), additive=False)


def taylor_scores(
    module: nn.Module,
    graph: ChannelGraph,
    data: FaceDataset,
    input: InputSpec,
    *,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Return the first-order change of the loss when a class's gates close.

    The gate is the BN scale γ and the score Σ over images |∂L/∂γ · γ| (equation 3-6 of the PRJ thesis), L being the
    cross-entropy of one image. The sum over images of absolute values, not the absolute value of the sum, is how
    the equation is read here: changes of opposite sign do not make a channel unimportant. Since the derivative by γ
    sums gradient times normalised activation over the map, γ · ∂L/∂γ = Σ_hw ∂L/∂y · (y − β) at the BN output y: one
    backward pass gives all gates of all images. As in the source the shift β is no part of the gate: what a closed
    channel still adds through β is constant, and the next layer's bias can learn it.

    Gates are those of the layers that make a class (parallel terms of a residual stream add up); where none of them
    has BN, the gate is the layer's whole output. BN uses its running statistics. Parameters are not changed.
    """
    device = next(module.parameters()).device
    scores = torch.zeros(len(graph.fixed), dtype=torch.float64)
    hooks = [
        module.get_submodule(layer.name).register_forward_hook(_gate_hook(scores, layer)) for layer in _gates(graph)
    ]
    targets = data.targets()
    try:
        with eval_mode(module):
            for start in range(0, len(data), batch_size):
                part = slice(start, start + batch_size)
                # The images require gradients so that a network with frozen parameters has a graph, too.
                images = to_input(data.images[part].to(device), input).requires_grad_()
                loss = F.cross_entropy(module(images), targets[part].to(device), reduction="sum")
                torch.autograd.grad(loss, images)
                if on_progress:
                    on_progress(min(start + batch_size, len(data)), len(data))
    finally:
        for hook in hooks:
            hook.remove()
    return Scores(scores, additive=True)


def _gates(graph: ChannelGraph) -> list[Layer]:
    """Return the layers whose outputs are gated: the BN behind each dense layer, else the dense layer itself.

    A BN behind a depthwise convolution closes the same path once more and would count it twice.
    """
    gates: list[Layer] = []
    gated = torch.zeros(len(graph.fixed), dtype=torch.bool)
    for before, layer in zip(graph.layers, graph.layers[1:], strict=False):
        if layer.kind == "norm" and before.kind == "dense" and torch.equal(layer.inputs, before.outputs):
            gates.append(layer)
            gated[layer.outputs] = True
    return gates + [la for la in graph.layers if la.kind == "dense" and not gated[la.outputs].any()]


def _gate_hook(scores: Tensor, layer: Layer) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(owner: nn.Module, _: Any, output: Tensor) -> None:
        gated = output.detach().clone()  # an in-place activation may overwrite the output
        if layer.kind == "norm" and owner.bias is not None:
            gated -= owner.bias.detach().reshape(-1, *[1] * (output.dim() - 2))  # type: ignore[operator]

        def add(gradient: Tensor) -> None:
            changes = (gradient * gated).flatten(2).sum(2) if gradient.dim() > 2 else gradient * gated
            scores.index_add_(0, layer.outputs, changes.abs().sum(0).to("cpu", torch.float64))

        output.register_hook(add)  # type: ignore[no-untyped-call]

    return hook
