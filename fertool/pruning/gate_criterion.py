"""The importance of channels by outputs on images.

The gate of a channel is `φ = m γ`, a mask times the scale of the BN behind the layer that computes
it (Sun, thesis, section 3.2.2). Since the derivative by γ sums gradient times normalized activation
over the map, `φ ∂L/∂φ = Σ_hw ∂L/∂y (y − β)` at the BN output y: one backward pass gives all gates
of all images. As in the source the shift β is no part of the gate: what a closed channel still adds
through β is constant, and the next layer's bias can absorb it. Where no BN stands behind the layers
that compute an id, the gate is the layer's whole output.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import channels_last, to_input
from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.graph.network import Network
from fertool.inference import eval_mode
from fertool.models.sampling import to_channels_first
from fertool.pruning.criterion import Criterion, Scores
from fertool.pruning.scored_layers import gated_layers
from fertool.spec import InputSpec, affordable_batch

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

# Few, so that the maps of a batch stay in the cache of a processor.
_BATCH = 16

GateChanges = list[tuple[Tensor, Tensor]]
"""For each gate the ids [C] that it closes, and `φ ∂L/∂φ` of every image [N, C]."""


class GateCriterion(Criterion):
    """A criterion by what closing the gate of a channel changes, summed over images."""

    needs_images = True

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return what to differentiate, a scalar, from logits and targets [N, K]."""

    @abstractmethod
    def aggregate(self, changes: GateChanges, ids: int) -> Tensor:
        """Return the scores, float64 [ids], of one batch from the changes of all gates."""

    def score(
        self,
        module: Network,
        graph: ChannelGraph,
        data: FaceDataset | None,
        input: InputSpec,
        *,
        normalization: str = "auto",
        on_progress: Callable[[int, int], None] | None = None,
        batch_size: int = _BATCH,
        seed: int = 0,
    ) -> Scores:
        """Return the score of each channel id, summed over the images of `data`.

        Each image takes one forward and one backward pass. BN uses its running statistics.
        Parameters are not changed; random directions come from `seed`.
        """
        if data is None:
            raise AssertionError("scores by outputs need images")
        device = next(module.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        scores = torch.zeros(len(graph.fixed), dtype=torch.float64)
        targets = data.targets()
        batch_size = affordable_batch(batch_size, input.size)

        with eval_mode(module), _record_gates(module, graph) as changes:
            for start in range(0, len(data), batch_size):
                batch = slice(start, start + batch_size)
                # The images require gradients, or a network of frozen parameters would have no
                # graph.
                pixels = to_input(data.images[batch].to(device), input)
                images = channels_last(pixels).requires_grad_()
                changes.clear()
                loss = self.loss(module(images), targets[batch].to(device), generator)
                torch.autograd.grad(loss, images)
                scores += self.aggregate(changes, len(scores))
                if on_progress:
                    on_progress(min(start + batch_size, len(data)), len(data))
        return Scores(scores, additive=normalization != "layer")


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
