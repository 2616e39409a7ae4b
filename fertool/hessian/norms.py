"""Squared gradients of each image in each output channel's weights, from one backward pass of a whole batch.

An image's gradient in the weights of a convolution is `D U^T`, with U its unfolded input [fan-in, positions] and D the
gradient at the output [channels, positions]; the squared norm of channel o is `(D U^T U D^T)_oo`. Where there are fewer
positions than weights, the Gram matrix `U^T U` is made once per batch and serves every backward pass, which costs much
less than the gradients themselves ("ghost norm": Goodfellow 2015, "Efficient per-example gradient computations",
arXiv:1510.01799; for convolutions Bu, Mao, Xu 2022, arXiv:2205.10683). A linear layer has one position.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional as F  # noqa: N812

Layer = nn.Conv2d | nn.Linear

_CHUNK_ELEMENTS = 1 << 22
"""Largest unfolded input made at a time, in elements (16 MB in float32): a whole batch's can be gigabytes."""


class LayerRun:
    """One layer's run on one batch, and the sums of its squared gradients over the backward passes.

    `total` and `squares`, float64 [N, channels], are the sums of the squared norms and of their squares; `edge` is the
    place in the graph where the gradient at the output, `add`'s argument, is taken.
    """

    def __init__(self, layer: Layer, x: Tensor, output: Tensor) -> None:
        self.layer, self.x = layer, x.detach()
        # An edge, not the tensor: an in-place activation may overwrite the layer's output before the backward pass.
        self.edge = get_gradient_edge(output)
        self.total = torch.zeros(len(x), layer.weight.shape[0], dtype=torch.float64, device=x.device)
        self.squares = torch.zeros_like(self.total)
        self._gram: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Add one backward pass, given the gradient at the layer's output."""
        norms = self.squared_norms(gradient).double()
        self.total += norms
        self.squares += norms.square()

    def squared_norms(self, gradient: Tensor) -> Tensor:
        """Return the squared norm of each image's gradient in each channel's weights, [N, channels]."""
        d = _output_matrix(self.layer, gradient)
        positions, fan_in = d.shape[-1], self.layer.weight[0].numel()
        if positions < fan_in:
            if self._gram is None:
                self._gram = torch.cat([u.mT @ u for u in self._unfolded(positions)])
            # A Gram matrix is positive, its rounded product need not be.
            return ((d @ self._gram) * d).sum(-1).clamp(min=0).flatten(1)
        parts = zip(torch.split(d, self._chunk(positions)), self._unfolded(positions), strict=True)
        return torch.cat([(part @ u.mT).square().sum(-1).flatten(1) for part, u in parts])

    def _unfolded(self, positions: int) -> Iterator[Tensor]:
        for part in torch.split(self.x, self._chunk(positions)):
            yield _input_matrix(self.layer, part)

    def _chunk(self, positions: int) -> int:
        """Return how many images to unfold at a time."""
        groups = self.layer.groups if isinstance(self.layer, nn.Conv2d) else 1
        return max(1, _CHUNK_ELEMENTS // (groups * self.layer.weight[0].numel() * positions))


def _input_matrix(layer: Layer, x: Tensor) -> Tensor:
    """Return U of each image and group, [N, groups, fan-in, positions]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), 1, -1, layer.in_features).mT
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    columns = F.unfold(x, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    return columns.reshape(len(x), layer.groups, -1, columns.shape[-1])


def _output_matrix(layer: Layer, gradient: Tensor) -> Tensor:
    """Return D of each image and group, [N, groups, channels / groups, positions]."""
    if isinstance(layer, nn.Linear):
        return gradient.reshape(len(gradient), 1, -1, layer.out_features).mT
    return gradient.reshape(len(gradient), layer.groups, layer.out_channels // layer.groups, -1)
