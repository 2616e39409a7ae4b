"""Squared gradients of each image in each output channel, from one backward pass of a whole batch.

An image's gradient in the weights of a convolution is `D U^T`, with U its unfolded input
[fan-in, positions] and D the gradient at the output [channels, positions]; the squared norm of
channel o is `(D U^T U D^T)_oo`. Where there are fewer positions than weights, the Gram matrix
`U^T U` is computed once per batch and serves every backward pass, which costs much less than the
gradients themselves ("ghost norm": Goodfellow 2015, "Efficient per-example gradient computations",
arXiv:1510.01799; for convolutions Bu, Mao, Xu 2022, arXiv:2205.10683). A linear layer has one
position. Elsewhere, above all in depthwise convolutions, the gradients themselves are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from fertool.hessian.layer_runs import WeightedLayer

_CHUNK_ELEMENTS = 1 << 22
"""Largest unfolded input at a time, in elements (16 MB in float32): a batch's can be gigabytes."""


class PerSampleGradNorms:
    """The squared gradients of one layer that has read `x`, for any number of backward passes."""

    def __init__(self, layer: WeightedLayer, x: Tensor) -> None:
        self.layer = layer
        self.x = x.detach()
        self._gram: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the squared norms in each channel's weights and in its outputs, [2, N, channels].

        `gradient` is that at the layer's output.
        """
        d = _output_matrix(self.layer, gradient)
        in_weights = self._in_weights(gradient, d)
        in_outputs = d.square().sum(-1).flatten(1)
        return torch.stack([in_weights, in_outputs])

    def _in_weights(self, gradient: Tensor, d: Tensor) -> Tensor:
        positions = d.shape[-1]
        if isinstance(self.layer, nn.Conv2d) and positions >= self.layer.weight[0].numel():
            return _image_gradients(self.layer, self.x, gradient).square().sum(-1)
        if self._gram is None:
            self._gram = _gram(self.layer, self.x, positions)
        squares = ((d @ self._gram) * d).sum(-1)
        # A Gram matrix has no negative eigenvalue, but its rounded product may be below 0.
        return squares.clamp(min=0).flatten(1)


def _image_gradients(layer: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Return each image's gradient in the weights, [N, channels, fan-in]."""
    # The images are groups of one large convolution: one call in place of N.
    images = len(x)
    channels, *kernel_shape = layer.weight.shape
    padded = _pad(layer, x)
    gradients: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        padded.reshape(1, -1, *padded.shape[2:]),
        (images * channels, *kernel_shape),
        gradient.reshape(1, -1, *gradient.shape[2:]),
        stride=layer.stride,
        dilation=layer.dilation,
        groups=images * layer.groups,
    )
    return gradients.reshape(images, channels, -1)


def _gram(layer: WeightedLayer, x: Tensor, positions: int) -> Tensor:
    """Return `U^T U` of each image and group, [N, groups, positions, positions]."""
    elements_per_image = x[0].numel() * layer.weight[0, 0].numel()
    chunk = max(1, _CHUNK_ELEMENTS // elements_per_image)
    grams = []
    for images in torch.split(x, chunk):
        u = _input_matrix(layer, images, positions)
        grams.append(u.mT @ u)
    return torch.cat(grams)


def _input_matrix(layer: WeightedLayer, x: Tensor, positions: int) -> Tensor:
    """Return U of each image and group, [N, groups, fan-in, positions]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), 1, -1, layer.in_features).mT
    windows = _pad(layer, x)
    # Strided views: many times faster than F.unfold on a CPU.
    for axis in (0, 1):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        windows = windows.unfold(2 + axis, reach, layer.stride[axis])
    windows = windows[..., :: layer.dilation[0], :: layer.dilation[1]]
    # [N, C, rows, columns, kernel rows, kernel columns] to kernels ahead of positions.
    return windows.permute(0, 1, 4, 5, 2, 3).reshape(len(x), layer.groups, -1, positions)


def _output_matrix(layer: WeightedLayer, gradient: Tensor) -> Tensor:
    """Return D of each image and group, [N, groups, channels / groups, positions]."""
    if isinstance(layer, nn.Linear):
        return gradient.reshape(len(gradient), 1, -1, layer.out_features).mT
    return gradient.reshape(len(gradient), layer.groups, layer.out_channels // layer.groups, -1)


def _pad(layer: nn.Conv2d, x: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    # PyTorch's own list, which has uneven "same" padding right.
    return F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
