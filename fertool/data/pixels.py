"""Conversion of raw pixels to the input of a network, and from one image shape to another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fertool.data.storage import Chunks, assemble, iter_chunks
from fertool.errors import FertoolError
from fertool.spec import InputSpec


def to_input(images: Tensor, input: InputSpec) -> Tensor:
    """Normalize pixels uint8 [N, C, S, S] (or floats on the 0-255 scale) to float32.

    The map is `(x - zero_point) * scale`: the same as `(x / 255 - mean) / std`, and the one that an
    exported INT8 graph starts with. Raises FertoolError when channels or size are not those of
    `input`.
    """
    shape = tuple(images.shape[1:])
    expected = (input.channels, input.size, input.size)
    if shape != expected:
        raise FertoolError(
            f"images of shape {_shape_text(shape)} for a model that takes {_shape_text(expected)}",
            "open the data with the model's size and channels",
        )
    zero_point = per_channel(input.zero_point, images.device)
    scale = per_channel(input.scale, images.device)
    return normalize(images, zero_point, scale)


def normalize(images: Tensor, zero_point: Tensor, scale: Tensor) -> Tensor:
    """Return `(images - zero_point) * scale` in float32; both constants are of `per_channel`."""
    return (images.to(torch.float32) - zero_point) * scale


def channels_last(images: Tensor) -> Tensor:
    """Return images [N, C, S, S] in the memory layout that convolutions are fastest in.

    Depthwise ones and poolings take half the time.
    """
    # Gray images count as both layouts: only strides that are written out pass one on.
    return torch.empty_like(images, memory_format=torch.channels_last).copy_(images)


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def per_channel(values: tuple[float, ...], device: torch.device | None = None) -> Tensor:
    """Return a value a channel as float32 [1, C, 1, 1], beside images [N, C, S, S]."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Return a tensor over the memory of an array. It may be a mapped file: never write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.ascontiguousarray(images))


def fit_images(images: NDArray[np.uint8], size: int, channels: int) -> Tensor:
    """Return images [N, C, H, W] as a tensor uint8 [N, channels, size, size].

    It shares the memory of images that have this shape already.
    """
    shape = (len(images), channels, size, size)
    if images.shape == shape:
        return as_tensor(images)

    def resized() -> Iterator[NDArray[np.uint8]]:
        for chunk in iter_chunks(images):
            # Channels first, so that gray images are made of all pixels that were read.
            yield resize(convert_channels(as_tensor(chunk), channels), size).numpy()

    return as_tensor(assemble(Chunks(shape, resized)))


def resize(images: Tensor, size: int, *, chunk: int = 1024) -> Tensor:
    """Resize uint8 [N, C, H, W] to [N, C, size, size].

    Bilinear with antialiasing, so that shrinking averages areas.
    """
    if tuple(images.shape[-2:]) == (size, size):
        return images
    resized = images.new_empty((len(images), images.shape[1], size, size))
    # In chunks, for the pixels take four times the memory as floats.
    for start in range(0, len(images), chunk):
        pixels = images[start : start + chunk].to(torch.float32)
        scaled = F.interpolate(
            pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )
        resized[start : start + chunk] = scaled.round_().clamp_(0, 255).to(torch.uint8)
    return resized


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Return images [N, 1 or 3, H, W] with 1 or 3 channels: gray repeated, or luma (BT.601)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    # Pillow's integer luma, so that a color file gives the same gray whoever converts it.
    weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32, device=images.device)
    products = images.to(torch.int32) * weights.view(1, 3, 1, 1)
    rounded = products.sum(dim=1, keepdim=True) + 0x8000
    return rounded.bitwise_right_shift(16).to(torch.uint8)


def constant_images(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool [N]: which images [N, C, H, W] have one level only.

    In chunks, for the images may be larger than memory.
    """
    found = [np.empty(0, np.bool_)]
    for chunk in iter_chunks(images):
        rows = chunk.reshape(len(chunk), math.prod(chunk.shape[1:]))
        found.append((rows == rows[:, :1]).all(axis=1))
    return np.concatenate(found)
