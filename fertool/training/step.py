"""One optimizer step: gradients of one or several batches, then new weights."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.config.training import TrainConfig
from fertool.graph.batch_norm import sync_batch_norm
from fertool.objective import Objective
from fertool.precision import autocast
from fertool.training.random_streams import fork_rng
from fertool.training.sharpness_aware import sam_perturbation


@dataclass(frozen=True)
class Batch:
    """Normalized inputs [N, C, S, S], target distributions [N, K], and the batch's loss weight.

    `weight` is N as a fraction of the images of the step. Of a `sharded` batch other ranks have the
    other images.
    """

    inputs: Tensor
    targets: Tensor
    weight: float
    sharded: bool = False


@dataclass(frozen=True)
class Stepper:
    """Updates the weights; nothing here waits for the device. `dtype` is that of the computation.

    `learners` holds all weights that are trained: those of the network `module`, and of the
    objective's own layers. In a data-parallel run each rank passes its shards of the batches, and
    all take the same step.
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
        """Take one step; returns the loss at the weights before it, detached, on the device.

        In a data-parallel run it is what this rank's images add to the loss.
        """
        self.optimizer.zero_grad()
        backward = self._sharpness_aware_backward if self.config.sam_rho else self._backward
        loss = backward(batches)
        if self.config.max_grad_norm:
            # Unscaled first: the limit is on the true gradient.
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learners.parameters(), self.config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def _sharpness_aware_backward(self, batches: Iterable[Batch]) -> Tensor:
        """Compute the gradients at the perturbed weights; returns the loss at the weights.

        Sharpness-aware minimization, Foret et al. 2021, algorithm 1.
        """
        # A list, since both passes go through the batches.
        batches = list(batches)
        # The same dropout in both passes, for the second gradient is of the same function.
        with fork_rng(self.device):
            loss = self._backward(batches)
        with sam_perturbation(self.learners, self.config.sam_rho):
            self.optimizer.zero_grad()
            self._backward(batches)
        return loss

    def _backward(self, batches: Iterable[Batch]) -> Tensor:
        """Accumulate the gradients of the mean loss over the images of all batches; returns it."""
        # Summed on the device: `float(loss)` would wait for it after every batch.
        total = torch.zeros((), device=self.device)
        for batch in batches:
            statistics: AbstractContextManager[None] = nullcontext()
            if batch.sharded:
                statistics = sync_batch_norm(self.learners, distributed.all_reduce)
            with statistics, autocast(self.dtype, self.device):
                loss = self.objective(self.module, batch.inputs, batch.targets) * batch.weight
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach()
        distributed.all_reduce_gradients_(self.learners.parameters())
        return total
