"""Batch normalisation over the whole batch when several processes share it.

With the statistics of its own part only, a network would train differently for every number of processes, and badly
where parts are small. torch.nn.SyncBatchNorm computes the same as this module, but on GPUs only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fertool import distributed


@contextmanager
def shared_statistics(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of `module`, while they train, take their statistics from the images of all processes."""
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        # The layer stays the same object with the same tensors, whoever else refers to it.
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forward(layer: _BatchNorm, inputs: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, inputs)
    weight = (
        torch.ones(inputs.shape[1], device=inputs.device) if layer.weight is None else layer.weight
    )
    normalised, mean, variance, count = _Normalise.apply(inputs, weight, layer.bias, layer.eps)  # type: ignore[no-untyped-call]
    if layer.track_running_stats:
        _record(layer, mean, variance, count)
    return normalised  # type: ignore[no-any-return]


@torch.no_grad()
def _record(layer: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    share: Tensor | float = (
        1 / layer.num_batches_tracked if layer.momentum is None else layer.momentum
    )
    layer.running_mean.add_(share * (mean - layer.running_mean))
    layer.running_var.add_(share * (variance * (count / (count - 1)) - layer.running_var))


class _Normalise(torch.autograd.Function):
    """`weight (x - mean) / sqrt(variance + eps) + bias` over the images of all processes (Ioffe and Szegedy 2015).

    Also returns mean, variance [C] and the values per channel that they are of.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, ...]:
        mean, variance = (
            part.double()
            for part in torch.batch_norm_update_stats(inputs.to(weight.dtype), None, None, 0.0)
        )
        # In float64 the difference of the squares loses nothing that counts.
        moments = torch.stack([torch.ones_like(mean), mean, mean.square() + variance])
        count, mean, square = distributed.summed(moments * (inputs.numel() // inputs.shape[1]))
        count, mean = count[0], mean / count
        variance = (square / count - mean.square()).clamp_min(0)
        mean, variance, count = (number.to(weight.dtype) for number in (mean, variance, count))
        normalised = F.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(inputs, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, variance, count = ctx.saved_tensors
        # As if the statistics were constants; what flows through them, from all processes, comes off below.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, inputs, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        through_scale, through_mean = distributed.summed(torch.stack([to_weight, to_bias])) / count
        deviation = (variance + ctx.eps).rsqrt()
        slope = weight * deviation.square() * through_scale
        offset = weight * deviation * through_mean - slope * mean
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        # In place: `direct` is nobody else's, and new memory costs more than the sums.
        direct.sub_(offset.view(shape)).addcmul_(
            inputs, slope.view(shape).to(inputs.dtype), value=-1
        )
        return direct, to_weight, to_bias if ctx.needs_input_grad[2] else None, None
