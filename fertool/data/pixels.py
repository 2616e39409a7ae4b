"""From raw pixels to what a network reads, and from one image shape to another."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fertool.data.storage import Chunks, assemble, pieces
from fertool.errors import FertoolError
from fertool.spec import InputSpec


def to_input(images: Tensor, input: InputSpec) -> Tensor:
    """Normalise pixels uint8 [N, C, S, S] (or floats on the 0-255 scale) to float32: `(x - zero_point) * scale`.

    The same map as `(x / 255 - mean) / std`, and the one that an exported INT8 graph starts with.
    Raises FertoolError when channels or size are not those of `input`.
    """
    wanted = (input.channels, input.size, input.size)
    if tuple(images.shape[1:]) != wanted:
        given = "x".join(map(str, images.shape[1:]))
        raise FertoolError(
            f"images of shape {given} for a model that takes {'x'.join(map(str, wanted))}",
            "open the data with the model's size and channels",
        )
    zero_point = torch.tensor(input.zero_point, dtype=torch.float32, device=images.device).view(
        1, -1, 1, 1
    )
    scale = torch.tensor(input.scale, dtype=torch.float32, device=images.device).view(1, -1, 1, 1)
    return (images.to(torch.float32) - zero_point) * scale


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Return a tensor over the memory of an array, which may be a mapped file: nothing may write into it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(images))


def fitted(images: NDArray[np.uint8], size: int, channels: int) -> Tensor:
    """Return images [N, C, H, W] as a tensor uint8 [N, channels, size, size], of the same memory if they are that."""
    shape = (len(images), channels, size, size)
    if images.shape == shape:
        return as_tensor(images)
    parts = Chunks(
        shape,
        lambda: (
            resize(with_channels(as_tensor(part), channels), size).numpy()
            for part in pieces(images)
        ),
    )
    return as_tensor(assemble(parts))


def resize(images: Tensor, size: int, *, chunk: int = 1024) -> Tensor:
    """Resize uint8 [N, C, H, W] to [N, C, size, size], bilinear with antialiasing, so that shrinking averages areas."""
    if tuple(images.shape[-2:]) == (size, size):
        return images
    resized = images.new_empty((len(images), images.shape[1], size, size))
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].to(torch.float32)
        scaled = F.interpolate(
            pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
        resized[start : start + chunk] = scaled.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return [N, 1 or 3, H, W] with the wanted number of channels: gray is repeated, colour becomes luma (BT.601)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    # PIL's integer luma, so that a colour file gives the same gray whoever converts it.
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=images.device).view(
        1, 3, 1, 1
    )
    return (
        ((images.to(torch.int32) * weights).sum(dim=1, keepdim=True) + 0x8000)
        .bitwise_right_shift(16)
        .to(torch.uint8)
    )
