"""What rounding errors within a network add to the divergence of its outputs, to second order.

With z the logits and e what rounding adds to some values, the divergence from the network's own
outputs is `E [u . J e]^2 / 2`, u a random root of its Hessian in z (`divergence_probe`, of mean
`S S^T`) and J the derivative of z by these values: the mean of `sum_k (S_k . J e)^2 / 2`. One
backward pass of `u . z` gives it for the errors of all layers at once, with all that the errors
within one image have in common, which a trace leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.losses import divergence_probe
from fertool.spec import InputSpec, affordable_batch


class ErrorProbe:
    """Records what candidate errors would add to `u . z`: `changes` [..., N] of one batch.

    None until a backward pass has reached it.
    """

    def __init__(self) -> None:
        self.changes: Tensor | None = None

    def reset(self) -> None:
        """Start a batch."""
        self.changes = None

    def add(self, changes: Tensor) -> None:
        """Add the changes of errors that are made together."""
        self.changes = changes.double() if self.changes is None else self.changes + changes


def mean_divergences(
    network: nn.Module,
    probes: Mapping[str, ErrorProbe],
    images: Tensor,
    input: InputSpec,
    *,
    batch_size: int = 64,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Return the divergence, in nats, that each candidate error of each probe causes, [...].

    The probes stand in `network` already; those that no gradient reaches are left out. `images` are
    uint8 [N, C, S, S]; `tick` is called after each batch.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, Tensor] = {}
    for batch in torch.split(images, affordable_batch(batch_size, input.size)):
        for probe in probes.values():
            probe.reset()
        # The images require gradients, so that every layer has a backward pass.
        pixels: Any = to_input(batch.to(device), input).requires_grad_()
        with torch.enable_grad():
            torch.autograd.grad(divergence_probe(network(pixels), generator), pixels)
        for name, probe in probes.items():
            if probe.changes is not None:
                divergence = probe.changes.square().sum(-1).cpu() / 2
                sums[name] = sums[name] + divergence if name in sums else divergence
        tick()
    return {name: total / len(images) for name, total in sums.items()}
