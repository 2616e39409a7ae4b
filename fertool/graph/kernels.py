"""What computes the operators for which PyTorch has no function of the same arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def identity(x: Tensor) -> Tensor:
    """Return the input."""
    return x


def stochastic_depth(x: Tensor, p: float, *, training: bool) -> Tensor:
    """Drop whole images with probability `p` while training, and divide the others by 1 - p (1603.09382)."""
    if not training or p == 0:
        return x
    return x * F.dropout(torch.ones_like(x[:, :1, :1, :1] if x.dim() == 4 else x[:, :1]), p)


def cat(*tensors: Tensor, dim: int) -> Tensor:
    """Join tensors along an axis."""
    return torch.cat(tensors, dim)


def stack(*tensors: Tensor, dim: int) -> Tensor:
    """Join tensors along a new axis."""
    return torch.stack(tensors, dim)


def split(x: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    """Cut a tensor into parts of these sizes."""
    return torch.split(x, list(sizes), dim)


def pick(parts: Sequence[Tensor], index: int) -> Tensor:
    """Return one of several results."""
    return parts[index]


def cut(x: Tensor, dim: int, start: int, step: int, end: int | None = None) -> Tensor:
    """Return the entries from `start` to `end` of an axis."""
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Lay the values out in another shape; 0 keeps the size that the axis of that number has, -1 follows."""
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat axes of size 1, without a copy; -1 keeps a size."""
    return x.expand(*shape)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Take one channel of each group in turn, as ShuffleNet does (1707.01083)."""
    height, width = x.shape[2:]
    # Sizes as plain integers and -1 for the batch: what a traced graph keeps free is the batch alone.
    channels = x.shape[1]
    pairs = x.reshape(-1, groups, channels // groups, height, width).transpose(1, 2)
    return pairs.reshape(-1, channels, height, width)
