"""Squared gradients of each image in each output channel, from one backward pass of a whole batch.

An image's gradient in the weights of a convolution is `D U^T`, with U its unfolded input [fan-in, positions] and D the
gradient at the output [channels, positions]; the squared norm of channel o is `(D U^T U D^T)_oo`. Where there are fewer
positions than weights, the Gram matrix `U^T U` is made once per batch and serves every backward pass, which costs much
less than the gradients themselves ("ghost norm": Goodfellow 2015, "Efficient per-example gradient computations",
arXiv:1510.01799; for convolutions Bu, Mao, Xu 2022, arXiv:2205.10683). A linear layer has one position. Elsewhere,
depthwise convolutions above all, the gradients themselves are made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from fertool.hessian.layers import Layer

_CHUNK_ELEMENTS = 1 << 22
"""Largest unfolded input made at a time, in elements (16 MB in float32): a whole batch's can be gigabytes."""


class Norms:
    """The squared gradients of one layer that has read `x`, for any number of backward passes."""

    def __init__(self, layer: Layer, x: Tensor) -> None:
        self.layer, self.x = layer, x.detach()
        self._gram: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the squared norms in each channel's weights and in its outputs, [2, N, channels].

        `gradient` is that at the layer's output.
        """
        d = _output_matrix(self.layer, gradient)
        return torch.stack([self._in_weights(gradient, d), d.square().sum(-1).flatten(1)])

    def _in_weights(self, gradient: Tensor, d: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Conv2d) and d.shape[-1] >= self.layer.weight[0].numel():
            return _image_gradients(self.layer, self.x, gradient).square().sum(-1)
        if self._gram is None:
            self._gram = _gram(self.layer, self.x, d.shape[-1])
        # A Gram matrix is never negative, but its rounded product may be.
        return ((d @ self._gram) * d).sum(-1).clamp(min=0).flatten(1)


def _image_gradients(layer: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Return each image's gradient in the weights, [N, channels, fan-in]: images as groups of one large convolution."""
    count, shape = len(x), layer.weight.shape
    padded = _padded(layer, x)
    gradients: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        padded.reshape(1, -1, *padded.shape[2:]),
        (count * shape[0], *shape[1:]),
        gradient.reshape(1, -1, *gradient.shape[2:]),
        stride=layer.stride,
        dilation=layer.dilation,
        groups=count * layer.groups,
    )
    return gradients.reshape(count, shape[0], -1)


def _gram(layer: Layer, x: Tensor, positions: int) -> Tensor:
    """Return `U^T U` of each image and group, [N, groups, positions, positions]."""
    chunk = max(1, _CHUNK_ELEMENTS // (x[0].numel() * layer.weight[0, 0].numel()))
    return torch.cat(
        [
            u.mT @ u
            for u in (_input_matrix(layer, part, positions) for part in torch.split(x, chunk))
        ]
    )


def _input_matrix(layer: Layer, x: Tensor, positions: int) -> Tensor:
    """Return U of each image and group, [N, groups, fan-in, positions]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), 1, -1, layer.in_features).mT
    windows = _padded(layer, x)
    for axis in (0, 1):  # strided views: many times faster than F.unfold on a CPU
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        windows = windows.unfold(2 + axis, reach, layer.stride[axis])
    windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(len(x), layer.groups, -1, positions)


def _output_matrix(layer: Layer, gradient: Tensor) -> Tensor:
    """Return D of each image and group, [N, groups, channels / groups, positions]."""
    if isinstance(layer, nn.Linear):
        return gradient.reshape(len(gradient), 1, -1, layer.out_features).mT
    return gradient.reshape(len(gradient), layer.groups, layer.out_channels // layer.groups, -1)


def _padded(layer: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
