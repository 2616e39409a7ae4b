"""Inputs and outputs of layers at sampled positions of their maps, for regression on weights.

The regressions are those of reconstruction after pruning, and of rounding by GPTQ.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RIDGE = 0.01
"""Weight of staying at the given weights, relative to the mean variance of a layer's inputs.

Without it a regression on few images has no unique solution.
"""
MAX_POSITIONS = 64
"""Positions of a map that are sampled, once for each layer and all images."""
_MIN_IMAGES = 16
_MAX_IMAGES = 2048
_MAX_PIXELS = 512 * 64**2
"""Pixels of all images together, which the memory for their maps grows with."""


def ridge_strength(covariances: Tensor) -> Tensor:
    """Return what ridge regression adds to the variances: [..., 1] of covariances [..., F, F]."""
    mean = covariances.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    # The bound keeps the matrix regular where no input varies.
    return (RIDGE * mean).clamp(min=1e-12)


def limit_images(images: Tensor, side: int) -> Tensor:
    """Return the first of the images [N, ...], as many as regressions on all layers need.

    910 of 48 pixels a side, 41 of 224: the maps of all are in memory at once.
    """
    affordable = min(_MAX_IMAGES, _MAX_PIXELS // side**2)
    return images[: max(_MIN_IMAGES, affordable)]


def sample_positions(
    positions: int, generator: torch.Generator, max_positions: int = MAX_POSITIONS
) -> Tensor:
    """Return up to `max_positions` of the positions of a map, int64 [P], ascending."""
    return torch.randperm(positions, generator=generator)[:max_positions].sort().values


def input_columns(layer: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
    """Return what a layer multiplies by its weights at `positions` [P] of its output.

    [groups, fan-in, N P]. `x` is [N, C, H, W]; for a linear layer, which has one group, [N, C] or,
    with several positions, [N, …, C].
    """
    if isinstance(layer, nn.Linear):
        rows = x if x.dim() == 2 else x.flatten(1, -2)[:, positions].flatten(0, 1)
        return rows.mT.unsqueeze(0)
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        raise AssertionError("only linear layers and convolutions have weights")
    kernel_height, kernel_width = layer.kernel_size
    padding_y, padding_x = layer.padding
    padded = x
    if padding_x or padding_y:
        padded = F.pad(x, (padding_x, padding_x, padding_y, padding_y))
    row_values = padded.shape[3]
    reach = layer.dilation[1] * (kernel_width - 1) + 1
    columns = (row_values - reach) // layer.stride[1] + 1
    top = positions // columns * layer.stride[0]
    left = positions % columns * layer.stride[1]

    # Only at the positions: unfolding whole maps would take memory for all of them.
    places = []
    for i in range(kernel_height):
        for j in range(kernel_width):
            rows_down = top + i * layer.dilation[0]
            places.append(rows_down * row_values + left + j * layer.dilation[1])
    found = gather_positions(padded, torch.cat(places))
    by_group = found.reshape(len(x), layer.groups, -1, len(positions))
    return by_group.permute(1, 2, 0, 3).flatten(2)


def to_channels_first(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the input or output of a layer as [N, C, …]."""
    # Linear layers over several positions have the channels last.
    if isinstance(layer, nn.Linear) and x.dim() > 2:
        return x.flatten(1, -2).transpose(1, 2)
    return x


def gather_positions(x: Tensor, positions: Tensor) -> Tensor:
    """Return a map [N, C, H, W] at some positions: [N, C, P]; a vector [N, C] has one position."""
    if x.dim() == 2:
        return x.unsqueeze(2)[:, :, positions]
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        # Flattening behind the channels would copy the whole map.
        return x.permute(0, 2, 3, 1).flatten(1, 2)[:, positions].mT
    return x.flatten(2)[:, :, positions]
