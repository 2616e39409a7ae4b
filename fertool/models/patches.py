"""What a layer multiplies by its weights, at some places of its output map: regression takes the layer's part there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PLACES = 64
"""Places of a map, drawn once for each layer, at which an image is looked at."""
_FEWEST, _IMAGES, _SIDE = 16, 512, 64


def enough(images: Tensor, side: int) -> Tensor:
    """Return the first of the images [N, ...], as many as a regression on every layer of a network needs.

    512 up to 64 pixels a side; of larger ones fewer, since the maps of all images are in memory at once.
    """
    return images[: max(_FEWEST, min(_IMAGES, _IMAGES * _SIDE**2 // side**2))]


def draw_places(positions: int, generator: torch.Generator, most: int = PLACES) -> Tensor:
    """Return up to `most` places of a map of so many positions, int64 [P], ascending."""
    return torch.randperm(positions, generator=generator)[:most].sort().values


def patches(layer: nn.Module, x: Tensor, places: Tensor) -> Tensor:
    """Return the inputs of a convolution or linear layer at `places` [P] of its output: [groups, N P, fan-in].

    `x` is [N, C, H, W]; for a linear layer, which has one group, [N, C] or, with several places, [N, …, C].
    """
    if isinstance(layer, nn.Linear):
        rows = x if x.dim() == 2 else x.flatten(1, -2)[:, places].flatten(0, 1)
        return rows.unsqueeze(0)
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        raise AssertionError("only linear layers and convolutions have weights")
    (high, wide), (up, left) = layer.kernel_size, layer.padding
    padded = F.pad(x, (left, left, up, up))
    columns = (padded.shape[3] - layer.dilation[1] * (wide - 1) - 1) // layer.stride[1] + 1
    top, start = places // columns * layer.stride[0], places % columns * layer.stride[1]
    taps = [
        padded[:, :, top + i * layer.dilation[0], start + j * layer.dilation[1]]
        for i in range(high)
        for j in range(wide)
    ]
    by_channel = torch.stack(taps, 2).reshape(len(x), layer.groups, -1, len(taps), len(places))
    return by_channel.permute(1, 0, 4, 2, 3).flatten(3).flatten(1, 2)


def with_channels_second(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a layer reads or makes as [N, C, …]: linear layers over several places have the channels last."""
    return x.flatten(1, -2).transpose(1, 2) if isinstance(layer, nn.Linear) and x.dim() > 2 else x


def at(x: Tensor, places: Tensor) -> Tensor:
    """Return a map [N, C, H, W], or a vector [N, C] as a map of one place, at some places: [N, C, P]."""
    return (x.flatten(2) if x.dim() > 2 else x.unsqueeze(2))[:, :, places]
