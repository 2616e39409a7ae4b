"""Optimizers, learning rate schedules, and the exponential moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fertool.config.training import TrainConfig

# The defaults of torch's OneCycleLR and ReduceLROnPlateau.
ONECYCLE_RISE_FRACTION = 0.3
"""The fraction of the steps in which the one-cycle learning rate rises (`pct_start`)."""
ONECYCLE_START_RATIO = 1 / 25
"""The first one-cycle learning rate as a ratio of the peak (1 / `div_factor`)."""
PLATEAU_THRESHOLD = 1e-4
"""A loss must be lower than the best one by this fraction to count as better (`threshold`)."""


def make_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of a module's trainable parameters.

    Biases and normalization parameters have no weight decay (He et al. 2019, arXiv 1812.01187,
    section 3.1).
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = _parameter_groups(trained, config.weight_decay)
    # One call for all tensors: small networks have hundreds of them.
    fused = all(p.device.type in ("cpu", "cuda") for p in trained)
    if config.optimizer == "sgd":
        # Fused momentum has to begin in all tensors at once, which frozen epochs prevent.
        return torch.optim.SGD(
            groups,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov and config.momentum > 0,
            fused=fused and config.freeze_epochs == 0,
        )
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return adam(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=fused)


def _parameter_groups(
    parameters: Sequence[nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    # By dimensions: weights are matrices or kernels, biases and scales of norms are vectors.
    decayed = [p for p in parameters if p.ndim > 1]
    other = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, Any]] = []
    if decayed:
        groups.append({"params": decayed, "weight_decay": weight_decay})
    if other:
        groups.append({"params": other, "weight_decay": 0.0})
    return groups


def lr_at(
    config: TrainConfig, step: int, steps_per_epoch: int, val_losses: Sequence[float] = ()
) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run.

    After a linear warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2.2) 'cosine' falls along
    half a cosine to `final_lr_ratio` (Loshchilov and Hutter 2017, equation 5), 'constant' stays at
    the peak, and 'plateau' depends on the `val_losses` of the epochs so far. 'onecycle' rises along
    a cosine too, over the warm-up or, without one, 30 % of the run (Smith and Topin 2018).
    """
    last_step = max(1, config.epochs * steps_per_epoch - 1)
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if config.lr_schedule == "onecycle":
        return config.lr * _onecycle_ratio(step, last_step, warmup_steps, config.final_lr_ratio)
    if step < warmup_steps:
        return config.lr * (step + 1) / (warmup_steps + 1)
    if config.lr_schedule == "constant":
        return config.lr
    if config.lr_schedule == "plateau":
        return config.lr * plateau_ratio(val_losses, config.plateau_factor, config.plateau_patience)
    progress = (step - warmup_steps) / max(1, last_step - warmup_steps)
    return config.lr * _cosine(1.0, config.final_lr_ratio, progress)


def _onecycle_ratio(step: int, last_step: int, warmup_steps: float, final_ratio: float) -> float:
    """Return the one-cycle learning rate as a ratio of the peak."""
    peak_step = warmup_steps or ONECYCLE_RISE_FRACTION * (last_step + 1) - 1
    if step < peak_step:
        return _cosine(ONECYCLE_START_RATIO, 1.0, step / peak_step)
    return _cosine(1.0, final_ratio, (step - peak_step) / max(1, last_step - peak_step))


def plateau_ratio(losses: Sequence[float], factor: float, patience: int) -> float:
    """Return the learning rate after epochs with these losses, as a ratio of the peak.

    It is multiplied by `factor` each time that more than `patience` epochs in a row have not
    improved on the lowest loss: the rule of torch's ReduceLROnPlateau, as a function of the
    history, so that there is no state to keep.
    """
    ratio = 1.0
    lowest = math.inf
    bad_epochs = 0
    for loss in losses:
        if loss < lowest * (1 - PLATEAU_THRESHOLD):
            lowest = loss
            bad_epochs = 0
        else:
            bad_epochs += 1
        if bad_epochs > patience:
            ratio *= factor
            bad_epochs = 0
    return ratio


def _cosine(start: float, end: float, progress: float) -> float:
    """Return the value on half a cosine from `start` to `end`, for a progress from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


class WeightAverage:
    """The exponential moving average (EMA) of a module's weights and statistics, as a module."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self._decay = decay
        # Integer buffers, such as batch norm's counter, have no mean and are copied.
        self._averages: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        for average, weight in zip(_tensors(self.module), _tensors(module), strict=True):
            if average.is_floating_point():
                self._averages.append(average)
                self._weights.append(weight)
            else:
                self._copied.append((average, weight))

    def update(self, step: int) -> None:
        """Average in the weights after a step, counted from 0.

        The decay is `min(decay, (1 + t) / (10 + t))` at step t, as in TensorFlow's
        ExponentialMovingAverage: an average of few steps would be that of the initial weights.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        average_ = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_(self._averages, self._weights, step)
        for counter, source in self._copied:
            counter.copy_(source)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
