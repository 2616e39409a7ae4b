"""Batch normalization over the whole batch of a data-parallel run.

With the statistics of its own shard only, a network would train differently for every number of
processes, and badly where shards are small. torch.nn.SyncBatchNorm computes the same as this
module, but on GPUs only.
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
def sync_batch_norm(module: nn.Module) -> Iterator[None]:
    """Let the batch norms of `module`, while they train, use the statistics of all ranks."""
    layers = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    for layer in layers:
        # The layer stays the same object with the same tensors, whatever else refers to it.
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _forward(layer: _BatchNorm, inputs: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, inputs)

    has_weight = layer.weight is not None
    weight = layer.weight if has_weight else torch.ones(inputs.shape[1], device=inputs.device)
    outputs: Tensor
    outputs, mean, variance, count = _Normalize.apply(  # type: ignore[no-untyped-call]
        inputs, weight, layer.bias, layer.eps
    )
    if layer.track_running_stats:
        _update_running_stats_(layer, mean, variance, count)
    return outputs


@torch.no_grad()
def _update_running_stats_(
    layer: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor
) -> None:
    """Update the running mean and the running unbiased variance, as torch's own layer does."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)

    momentum: Tensor | float | None = layer.momentum
    if momentum is None:
        # A cumulative mean, as torch's own layer keeps without a momentum.
        momentum = 1 / layer.num_batches_tracked
    unbiased = variance * (count / (count - 1))
    layer.running_mean.add_(momentum * (mean - layer.running_mean))
    layer.running_var.add_(momentum * (unbiased - layer.running_var))


class _Normalize(torch.autograd.Function):
    """`weight (x - mean) / sqrt(variance + eps) + bias` over all ranks (Ioffe and Szegedy 2015).

    Also returns mean and variance [C], and the number of values per channel that they are of.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, ...]:
        mean, variance, count = _global_statistics(inputs, weight.dtype)
        outputs = F.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(inputs, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return outputs, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, variance, count = ctx.saved_tensors
        # As if the statistics were constants; what flows through them, from all ranks, is
        # subtracted below.
        grad_input, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, inputs, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        totals = distributed.all_reduce(torch.stack([grad_weight, grad_bias]))
        through_scale, through_mean = totals / count

        inverse_std = (variance + ctx.eps).rsqrt()
        slope = weight * inverse_std.square() * through_scale
        offset = weight * inverse_std * through_mean - slope * mean
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        # In place: nothing else refers to `grad_input`, and new memory costs more than the sums.
        grad_input.sub_(offset.view(shape))
        grad_input.addcmul_(inputs, slope.view(shape).to(inputs.dtype), value=-1)
        return grad_input, grad_weight, grad_bias if ctx.needs_input_grad[2] else None, None


def _global_statistics(inputs: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C], biased variance [C] and the number of values per channel, over all ranks."""
    own_mean, own_variance = torch.batch_norm_update_stats(inputs.to(dtype), None, None, 0.0)
    own_mean = own_mean.double()
    own_variance = own_variance.double()

    # In float64 the difference of the squares loses nothing that counts.
    moments = torch.stack([torch.ones_like(own_mean), own_mean, own_mean.square() + own_variance])
    values_per_channel = inputs.numel() // inputs.shape[1]
    counts, sums, square_sums = distributed.all_reduce(moments * values_per_channel)
    mean = sums / counts
    count = counts[0]
    variance = (square_sums / count - mean.square()).clamp_min(0)
    return mean.to(dtype), variance.to(dtype), count.to(dtype)
