"""Batch normalization, in a data-parallel run over the whole batch.

With the statistics of its own shard only, a network would train differently for every number of
processes, and badly where shards are small. torch.nn.SyncBatchNorm does not replace this module: it
refuses tensors on the CPU (torch 2.13: "expected input tensor to be on GPU or XPU"), and combines
float32 statistics of the ranks, where this sums float64 moments, so that a run of several processes
equals that of one up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fertool.errors import FertoolError

AllReduce = Callable[[Tensor], Tensor]
"""Returns the sum of a tensor over all ranks."""


class _SharedBatchNorm(_BatchNorm):
    """With an `all_reduce` it trains with the statistics of the batches of all ranks."""

    all_reduce: AllReduce | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized input [N, C, ...]."""
        if self.all_reduce is None or not self.training:
            return super().forward(input)

        weight: Tensor | None = self.weight
        if weight is None:
            weight = torch.ones(input.shape[1], device=input.device)
        output: Tensor
        output, mean, variance, count = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, weight, self.bias, self.eps, self.all_reduce
        )
        if self.track_running_stats:
            _update_running_stats_(self, mean, variance, count)
        return output


class BatchNorm1d(_SharedBatchNorm, nn.BatchNorm1d):
    """Batch normalization of [N, C] or [N, C, L]."""


class BatchNorm2d(_SharedBatchNorm, nn.BatchNorm2d):
    """Batch normalization of [N, C, H, W]."""


@contextmanager
def sync_batch_norm(module: nn.Module, all_reduce: AllReduce) -> Iterator[None]:
    """Let the batch norms of `module`, while they train, use the statistics of all ranks.

    Raises FertoolError for one that cannot: a layer of PyTorch's own, which networks of fertool do
    not have.
    """
    layers = []
    for name, part in module.named_modules():
        if isinstance(part, _SharedBatchNorm):
            layers.append(part)
        elif isinstance(part, _BatchNorm):
            raise FertoolError(
                f"layer {name}: {type(part).__name__} of PyTorch, whose statistics would be those "
                "of one process only",
                "make a fertool network of the module first",
            )
    for layer in layers:
        layer.all_reduce = all_reduce
    try:
        yield
    finally:
        for layer in layers:
            layer.all_reduce = None


@torch.no_grad()
def _update_running_stats_(
    layer: _SharedBatchNorm, mean: Tensor, variance: Tensor, count: Tensor
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
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        all_reduce: AllReduce,
    ) -> tuple[Tensor, ...]:
        mean, variance, count = _global_statistics(inputs, weight.dtype, all_reduce)
        outputs = F.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(inputs, weight, mean, variance, count)
        ctx.eps = eps
        ctx.all_reduce = all_reduce
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
        totals = ctx.all_reduce(torch.stack([grad_weight, grad_bias]))
        through_scale, through_mean = totals / count

        inverse_std = (variance + ctx.eps).rsqrt()
        slope = weight * inverse_std.square() * through_scale
        offset = weight * inverse_std * through_mean - slope * mean
        shape = (1, -1) + (1,) * (inputs.ndim - 2)
        # In place: nothing else refers to `grad_input`, and new memory costs more than the sums.
        grad_input.sub_(offset.view(shape))
        grad_input.addcmul_(inputs, slope.view(shape).to(inputs.dtype), value=-1)
        if not ctx.needs_input_grad[2]:
            grad_bias = None
        return grad_input, grad_weight, grad_bias, None, None


def _global_statistics(
    inputs: Tensor, dtype: torch.dtype, all_reduce: AllReduce
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean [C], biased variance [C] and the number of values per channel, over all ranks."""
    own_mean, own_variance = torch.batch_norm_update_stats(inputs.to(dtype), None, None, 0.0)
    own_mean = own_mean.double()
    own_variance = own_variance.double()

    # In float64 the difference of the squares loses nothing that counts.
    moments = torch.stack([torch.ones_like(own_mean), own_mean, own_mean.square() + own_variance])
    values_per_channel = inputs.numel() // inputs.shape[1]
    counts, sums, square_sums = all_reduce(moments * values_per_channel)
    mean = sums / counts
    count = counts[0]
    variance = (square_sums / count - mean.square()).clamp_min(0)
    return mean.to(dtype), variance.to(dtype), count.to(dtype)
