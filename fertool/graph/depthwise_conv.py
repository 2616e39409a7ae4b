"""Depthwise convolutions, whose weight gradient has a faster form for small maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel by itself, with a choice of how its weight gradient is summed.

    With `direct_gradient` it is summed here where oneDNN would fall back to reference code: where
    the kernel exceeds the map, as 5 x 5 on 3 x 3 does at the end of small networks. That gradient
    alone took a third of micro_expnet's training step. Values are the same up to rounding.
    """

    direct_gradient = False

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not self._sums_directly(input, weight):
            library_output: Tensor = super()._conv_forward(input, weight, bias)
            return library_output

        output: Tensor = _DirectWeightGradient.apply(  # type: ignore[no-untyped-call]
            input, weight, self.stride, self.padding
        )
        if bias is None:
            return output
        return output + bias.view(1, -1, 1, 1)

    def _sums_directly(self, input: Tensor, weight: Tensor) -> bool:
        """Return whether this call's weight gradient is summed here and not by the library."""
        if not self.direct_gradient or not weight.requires_grad:
            return False
        # Under autocast the forward pass would compute in another type than the saved tensors have.
        if not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return False
        return self._kernel_exceeds(input)

    def _can_sum_directly(self) -> bool:
        is_depthwise = self.groups == self.in_channels == self.out_channels
        is_zero_padded = self.padding_mode == "zeros" and not isinstance(self.padding, str)
        return is_depthwise and is_zero_padded and self.dilation == (1, 1)

    def _kernel_exceeds(self, input: Tensor) -> bool:
        height, width = input.shape[2:]
        return self.kernel_size[0] > height or self.kernel_size[1] > width


@contextmanager
def direct_weight_gradients(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Let the depthwise convolutions of a network on the CPU sum their weight gradients directly.

    For the training loop, where their time counts. No effect on other devices.
    """
    layers: list[DepthwiseConv2d] = []
    if device.type == "cpu":
        for part in module.modules():
            if isinstance(part, DepthwiseConv2d) and part._can_sum_directly():
                layers.append(part)
    for layer in layers:
        layer.direct_gradient = True
    try:
        yield
    finally:
        for layer in layers:
            layer.direct_gradient = False


class _DirectWeightGradient(torch.autograd.Function):
    """A depthwise convolution that sums its weight gradient with `_weight_gradient`."""

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
        grad_weight = _weight_gradient(input, grad, weight.shape[2:], ctx.stride, ctx.padding)
        return grad_input, grad_weight, None, None


def _weight_gradient(
    input: Tensor,
    grad: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Tensor:
    """Return the sum of input times output gradient, both [N, C, H, W], at each kernel position.

    The result is [C, 1, *kernel]; positions that never meet the map stay 0.
    """
    total = grad.new_zeros(grad.shape[1], 1, *kernel)
    # In channels-last memory these views run along the channels.
    x = input.permute(0, 2, 3, 1)
    g = grad.permute(0, 2, 3, 1)
    for row in range(kernel[0]):
        x_rows, g_rows = _overlap(row - padding[0], stride[0], x.shape[1], g.shape[1])
        for column in range(kernel[1]):
            x_columns, g_columns = _overlap(column - padding[1], stride[1], x.shape[2], g.shape[2])
            products = x[:, x_rows, x_columns] * g[:, g_rows, g_columns]
            total[:, 0, row, column] = products.sum((0, 1, 2))
    return total


def _overlap(shift: int, stride: int, inputs: int, outputs: int) -> tuple[slice, slice]:
    """Return the inputs that a kernel position meets, and the outputs that it contributes to.

    Output y reads input `stride * y + shift`.
    """
    first = max(0, -(shift // stride))
    last = min(outputs - 1, (inputs - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(stride * first + shift, stride * last + shift + 1, stride), slice(first, last + 1)
