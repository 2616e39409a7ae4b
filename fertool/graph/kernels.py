"""Functions of the operators for which PyTorch has none with the same arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def identity(x: Tensor) -> Tensor:
    """Return the input."""
    return x


def stochastic_depth(x: Tensor, p: float, *, training: bool) -> Tensor:
    """Set images to 0 with probability `p` while training, divide others by 1 - p (1603.09382)."""
    if not training or p == 0:
        return x
    # One entry per image of what can be multiplied with the input: a dropout of ones draws for each
    # image once.
    one_entry = x[:, :1]
    if x.dim() == 4:
        one_entry = x[:, :1, :1, :1]
    return x * F.dropout(torch.ones_like(one_entry), p)


def cat(*tensors: Tensor, dim: int) -> Tensor:
    """Concatenate tensors along an axis."""
    return torch.cat(tensors, dim)


def stack(*tensors: Tensor, dim: int) -> Tensor:
    """Stack tensors along a new axis."""
    return torch.stack(tensors, dim)


def split(x: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    """Split a tensor into parts of these sizes."""
    return torch.split(x, list(sizes), dim)


def getitem(parts: Sequence[Tensor], index: int) -> Tensor:
    """Return one tensor of a tuple."""
    return parts[index]


def slice_axis(x: Tensor, dim: int, start: int, step: int, end: int | None = None) -> Tensor:
    """Return the entries from `start` to `end` of an axis."""
    index = [slice(None)] * x.dim()
    index[dim] = slice(start, end, step)
    return x[tuple(index)]


def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the values in another shape: 0 keeps the size of an axis, -1 is inferred."""
    sizes = list(shape)
    for axis, size in enumerate(shape):
        if size == 0:
            sizes[axis] = x.shape[axis]
    return x.reshape(sizes)


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat axes of size 1 without a copy; -1 keeps the size of an axis."""
    return x.expand(*shape)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Take one channel of each group in turn, as in ShuffleNet (1707.01083)."""
    height, width = x.shape[2:]
    # Plain integers and -1 for the batch, so that an exporter that traces this sees fixed sizes for
    # all other axes.
    channels = x.shape[1]
    pairs = x.reshape(-1, groups, channels // groups, height, width).transpose(1, 2)
    return pairs.reshape(-1, channels, height, width)
