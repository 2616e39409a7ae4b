"""A faster weight gradient for depthwise convolutions whose kernel is wider than the map that it slides over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input


@contextmanager
def direct_depthwise(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Let depthwise convolutions on the CPU sum their weight gradients directly where the library is slow.

    oneDNN falls back to reference code where the kernel exceeds the map, as 5 x 5 on 3 x 3 does at the end of small
    networks: that gradient alone took a third of micro_expnet's training step. Values are the same up to rounding.
    """
    found = [part for part in module.modules() if device.type == "cpu" and _is_depthwise(part)]
    for part in found:
        part.__class__ = _DirectConv2d
    try:
        yield
    finally:
        for part in found:
            part.__class__ = nn.Conv2d


def _is_depthwise(part: nn.Module) -> bool:
    return (
        type(part) is nn.Conv2d
        and part.groups == part.in_channels == part.out_channels > 1
        and part.dilation == (1, 1)
        and part.padding_mode == "zeros"
        and not isinstance(part.padding, str)
    )


class _DirectConv2d(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        exceeds = any(
            kernel > side for kernel, side in zip(self.kernel_size, input.shape[2:], strict=True)
        )
        if (
            exceeds
            and weight.requires_grad
            and torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        ):
            output: Tensor = _Direct.apply(input, weight, self.stride, self.padding)  # type: ignore[no-untyped-call]
            return output if bias is None else output + bias.view(1, -1, 1, 1)
        plain: Tensor = super()._conv_forward(input, weight, bias)
        return plain


class _Direct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(input, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (grad,) = grads
        input, weight = ctx.saved_tensors
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input = conv2d_input(  # type: ignore[no-untyped-call]
                input.shape, weight, grad, ctx.stride, ctx.padding, groups=len(weight)
            )
        return (
            grad_input,
            _weight_grad(input, grad, weight.shape[2:], ctx.stride, ctx.padding),
            None,
            None,
        )


def _weight_grad(
    input: Tensor,
    grad: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Sum input times output gradient, [N, C, H, W] both, for every tap: [C, 1, *kernel]; taps outside stay 0."""
    summed = grad.new_zeros(grad.shape[1], 1, *kernel)
    # In channels-last memory these views run along the channels.
    x, g = input.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    rows = [
        _overlap(tap - padding[0], stride[0], x.shape[1], g.shape[1]) for tap in range(kernel[0])
    ]
    columns = [
        _overlap(tap - padding[1], stride[1], x.shape[2], g.shape[2]) for tap in range(kernel[1])
    ]
    for i, (x_rows, g_rows) in enumerate(rows):
        for j, (x_columns, g_columns) in enumerate(columns):
            summed[:, 0, i, j] = (x[:, x_rows, x_columns] * g[:, g_rows, g_columns]).sum((0, 1, 2))
    return summed


def _overlap(shift: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice]:
    """Return which inputs a tap sees, output y at input `stride * y + shift`, and for which outputs."""
    first = max(0, -(shift // stride))
    last = min(outputs - 1, (inputs - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(stride * first + shift, stride * last + shift + 1, stride), slice(first, last + 1)
