"""The optimisers, the course of the learning rate, and the running mean of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fertool.config.training import TrainConfig

ONECYCLE_RISE = 0.3
"""The share of the steps in which the one-cycle learning rate rises."""
ONECYCLE_START = 1 / 25
"""Where it starts, as a share of the peak."""
PLATEAU_THRESHOLD = 1e-4
"""By this share a loss must be below the best one to count as better."""


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a module's trainable parameters; biases and normalisation are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One call for all tensors: small networks have hundreds of them.
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        # Fused momentum has to begin in all tensors at once, which it does not where the head goes first.
        fused = fused and config.freeze_epochs == 0
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused
        )
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)


def lr_at(
    config: TrainConfig, step: int, steps_per_epoch: int, val_losses: Sequence[float] = ()
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run.

    Linear warm-up to the peak, then half a cosine down to `final_lr_ratio` (Loshchilov and Hutter 2017, equation 5),
    a constant, or 'plateau', which falls with the `val_losses` of the epochs so far; 'onecycle' rises by a cosine too,
    over the warm-up or, without one, 30 % of the run (Smith and Topin 2018).
    """
    last = max(1, config.epochs * steps_per_epoch - 1)
    rise = config.warmup_epochs * steps_per_epoch
    if config.lr_schedule == "onecycle":
        peak = rise or ONECYCLE_RISE * (last + 1) - 1
        if step < peak:
            return config.lr * _cosine(ONECYCLE_START, 1.0, step / peak)
        return config.lr * _cosine(1.0, config.final_lr_ratio, (step - peak) / max(1, last - peak))
    if step < rise:
        return config.lr * (step + 1) / (rise + 1)
    if config.lr_schedule == "constant":
        return config.lr
    if config.lr_schedule == "plateau":
        return config.lr * plateau_share(val_losses, config.plateau_factor, config.plateau_patience)
    return config.lr * _cosine(1.0, config.final_lr_ratio, (step - rise) / max(1, last - rise))


def plateau_share(losses: Sequence[float], factor: float, patience: int) -> float:
    """Return the share of the learning rate that is left after epochs with these losses.

    It is multiplied by `factor` each time that more than `patience` epochs on end have not bettered the lowest loss:
    the rule of torch's ReduceLROnPlateau, as a function of the history, so that there is no state to keep.
    """
    share, lowest, waited = 1.0, math.inf, 0
    for loss in losses:
        better = loss < lowest * (1 - PLATEAU_THRESHOLD)
        lowest, waited = (loss, 0) if better else (lowest, waited + 1)
        if waited > patience:
            share, waited = share * factor, 0
    return share


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


class WeightAverage:
    """The exponential running mean of a module's weights and statistics, itself a module that can be evaluated."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0; early on the mean follows them more closely."""
        decay = min(self._decay, (1 + step) / (10 + step))
        mine, theirs = ([pair[side] for pair in self._averaged] for side in (0, 1))
        get_ema_multi_avg_fn(decay)(mine, theirs, step)  # type: ignore[no-untyped-call]
        for counter, source in self._copied:
            counter.copy_(source)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
