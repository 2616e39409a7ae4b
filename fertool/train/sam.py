"""Sharpness-aware minimisation: take the gradient where the loss nearby is worst (Foret et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def ascended(module: nn.Module, rho: float) -> Iterator[None]:
    """Move the weights by `rho g / ||g||`, g being their gradients (equation 2), and put them back at the end.

    In between batch norm uses the statistics of its batches but does not record them: those of the weights that the
    step starts from have been recorded by the pass that made the gradients. Gradients of zero, and those that
    overflowed, move nothing.
    """
    pairs = [(p, p.grad) for p in module.parameters() if p.grad is not None]
    before = [p.detach().clone() for p, _ in pairs]
    recording = [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and part.track_running_stats
    ]
    with torch.no_grad():
        norm = nn.utils.get_total_norm([gradient for _, gradient in pairs])
        usable = (norm > 0) & norm.isfinite()
        for p, gradient in pairs:
            # Chosen by a mask, so that no device is waited for.
            p.add_(torch.where(usable, gradient * (rho / norm), 0.0))
    for part in recording:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in recording:
            part.track_running_stats = True
        with torch.no_grad():
            for (p, _), value in zip(pairs, before, strict=True):
                p.copy_(value)
