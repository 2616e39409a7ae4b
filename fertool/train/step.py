"""One step of the optimiser: gradients of one or several batches, then new weights."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.config.training import TrainConfig
from fertool.precision import autocast
from fertool.train.objective import Objective
from fertool.train.sam import ascended
from fertool.train.sync_batch_norm import sync_batch_norm


@dataclass(frozen=True)
class Batch:
    """Normalised inputs [N, C, S, S], target distributions [N, K], and N's share of the images of the step.

    Of a `shared` batch other processes have the other images.
    """

    inputs: Tensor
    targets: Tensor
    share: float
    shared: bool = False


@dataclass(frozen=True)
class Stepper:
    """What moves the weights; it waits for no device. `dtype` is the one to compute in.

    `learners` holds all the weights that move: those of the network `module`, and of the objective's own layers.
    Several processes each bring their parts of the batches, and all take the same step.
    """

    module: nn.Module
    learners: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    config: TrainConfig
    device: torch.device
    dtype: torch.dtype

    def step(self, batches: Iterable[Batch]) -> Tensor:
        """Take one step; returns the loss of the images at the weights before it, detached, on the device.

        With several processes it is what this one's images add to the loss.
        """
        self.optimizer.zero_grad()
        if self.config.sam:
            batches = list(batches)
            # The same dropout in both passes, for the second gradient is of the same function.
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                loss = self._backward(batches)
            with ascended(self.learners, self.config.sam):
                self.optimizer.zero_grad()
                self._backward(batches)
        else:
            loss = self._backward(batches)
        if self.config.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learners.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _backward(self, batches: Iterable[Batch]) -> Tensor:
        """Add up the gradients of the mean loss over the images of all batches; returns that loss."""
        total = torch.zeros((), device=self.device)
        for batch in batches:
            statistics = sync_batch_norm(self.learners) if batch.shared else nullcontext()
            with statistics, autocast(self.dtype, self.device):
                loss = self.objective(self.module, batch.inputs, batch.targets) * batch.share
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        distributed.all_reduce_gradients_(self.learners.parameters())
        return total
