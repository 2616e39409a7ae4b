"""Sharpness-aware minimization: the gradient at the worst point nearby (Foret et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def sam_perturbation(module: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by `rho g / ||g||`, g being their gradients (equation 2), for the block.

    Within the block batch norm uses the statistics of its batches but does not record them: those
    of the unperturbed weights were recorded by the pass that made the gradients. Gradients of zero,
    and those that overflowed, move nothing.
    """
    parameters: list[nn.Parameter] = []
    gradients: list[Tensor] = []
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameters.append(parameter)
            gradients.append(parameter.grad)
    weights = [parameter.detach().clone() for parameter in parameters]

    _ascend_(parameters, gradients, rho)
    norms = _tracking_norms(module)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        # Copied back: subtracting the step would not give the same bits.
        with torch.no_grad():
            for parameter, weight in zip(parameters, weights, strict=True):
                parameter.copy_(weight)


@torch.no_grad()
def _ascend_(parameters: list[nn.Parameter], gradients: list[Tensor], rho: float) -> None:
    norm = nn.utils.get_total_norm(gradients)
    usable = (norm > 0) & norm.isfinite()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        # Selected by a mask and not by `if`, which would wait for the device.
        parameter.add_(torch.where(usable, gradient * (rho / norm), 0.0))


def _tracking_norms(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that keep running statistics."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [norm for norm in norms if norm.track_running_stats]
