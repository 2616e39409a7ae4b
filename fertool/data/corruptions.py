"""What goes wrong with the pictures of real cameras, on images uint8 [N, C, S, S].

Every image of a seed is the same on every machine, whichever others are corrupted with it: random
numbers are raw output of a generator that an image has of its own, arithmetic is on integers, and
Pillow's resizing and JPEG coder, which compute with integers too, do the rest.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fertool.config.corruptions import CORRUPTIONS, REFERENCE_SIDE
from fertool.data.normal_noise import UNIT, normal_integers
from fertool.data.pixels import as_tensor
from fertool.data.reader import Pixels
from fertool.data.storage import Chunks, assemble, iter_chunks

_WEIGHT_BITS = 14
"""Of the integers that the weights of a blur are."""
_GRAY = 128
"""Of the square that hides a part of the face: Zeiler and Fergus 2014, section 4.2."""
_DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Corrupt = Callable[[Pixels, float, list[int]], Pixels]
"""Takes one image [C, S, S], the strength, and the seed of the image."""


def corrupt(images: Tensor, name: str, strength: float, seed: int) -> Tensor:
    """Return images uint8 [N, C, S, S] under one of `CORRUPTIONS`, with a random part by `seed`.

    An image has the same random part at every strength, so that levels differ in nothing else.
    """
    change = _FUNCTIONS[name]
    number = list(CORRUPTIONS).index(name)
    pixels = images.numpy()

    def parts() -> Iterator[NDArray[np.uint8]]:
        row = 0
        for chunk in iter_chunks(pixels):
            changed = np.empty_like(chunk)
            for index, image in enumerate(chunk):
                changed[index] = change(image, strength, [seed, number, row])
                row += 1
            yield changed

    return as_tensor(assemble(Chunks(pixels.shape, parts)))


def _noise(image: Pixels, sigma: float, seed: list[int]) -> Pixels:
    """Add normal noise of this standard deviation."""
    numbers = normal_integers(image.size, seed).reshape(image.shape)
    levels = UNIT * image.astype(np.int32) + round(sigma) * numbers
    return _to_bytes((levels + UNIT // 2) // UNIT)


def _blur(image: Pixels, sigma: float, seed: list[int]) -> Pixels:
    """Blur by a Gaussian; the border's pixels are repeated outside."""
    sigma *= image.shape[-1] / REFERENCE_SIDE
    weights = _gaussian(sigma)
    reach = len(weights) // 2
    edges = ((0, 0), (reach, reach), (reach, reach))
    padded = np.pad(image, edges, mode="edge").astype(np.int64)
    for axis in (1, 2):
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=axis)
        padded = windows @ weights
    bits = 2 * _WEIGHT_BITS
    return _to_bytes((padded + (1 << (bits - 1))) >> bits)


def _gaussian(sigma: float) -> NDArray[np.int64]:
    """Return the weights of a blur as integers that sum to 2^14."""
    reach = max(1, math.ceil(3 * sigma))
    distances = np.arange(-reach, reach + 1)
    curve = np.exp(-0.5 * (distances / sigma) ** 2)
    weights: NDArray[np.int64] = np.rint(curve / curve.sum() * (1 << _WEIGHT_BITS)).astype(np.int64)
    # What rounding has lost or won, so that a plain image stays what it is.
    weights[reach] += (1 << _WEIGHT_BITS) - weights.sum()
    return weights


def _resolution(image: Pixels, fraction: float, seed: list[int]) -> Pixels:
    """Shrink to a fraction of the side by averaging areas, and enlarge by repeating pixels.

    As "pixelate" of Hendrycks and Dietterich 2019 (arXiv 1903.12261).
    """
    side = image.shape[-1]
    small = max(1, round(fraction * side))

    def change(plane: Image.Image) -> Image.Image:
        shrunk = plane.resize((small, small), Image.Resampling.BOX)
        return shrunk.resize((side, side), Image.Resampling.NEAREST)

    return _plane_by_plane(image, change)


def _brightness(image: Pixels, gamma: float, seed: list[int]) -> Pixels:
    """Darken by a power of the fraction of the largest level."""
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return table[image]


def _contrast(image: Pixels, factor: float, seed: list[int]) -> Pixels:
    """Shrink the distance of every pixel to the image's mean."""
    levels = image.astype(np.int64)
    mean = int(levels.sum()) // image.size
    percent = round(100 * factor)
    return _to_bytes((100 * mean + percent * (levels - mean) + 50) // 100)


def _occlusion(image: Pixels, side: float, seed: list[int]) -> Pixels:
    """Hide a square by gray."""
    whole = image.shape[-1]
    length = min(whole, round(side * whole / REFERENCE_SIDE))
    top, left = _random_integers(seed, 2, whole - length + 1)
    hidden = image.copy()
    hidden[:, top : top + length, left : left + length] = _GRAY
    return hidden


def _shift(image: Pixels, distance: float, seed: list[int]) -> Pixels:
    """Move in one of eight directions; the border's pixels are repeated."""
    whole = image.shape[-1]
    (chosen,) = _random_integers(seed, 1, len(_DIRECTIONS))
    pixels = round(distance * whole / REFERENCE_SIDE)
    down, right = _DIRECTIONS[chosen]
    axis = np.arange(whole)
    rows = np.clip(axis - pixels * down, 0, whole - 1)
    columns = np.clip(axis - pixels * right, 0, whole - 1)
    return np.ascontiguousarray(image[:, rows][:, :, columns])


def _jpeg(image: Pixels, quality: float, seed: list[int]) -> Pixels:
    """Compress as a JPEG file of this quality, in color as cameras do."""

    def change(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=round(quality))
        return Image.open(file)

    if len(image) == 1:
        return _plane_by_plane(image, change)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(change(picture)).transpose(2, 0, 1)


def _plane_by_plane(image: Pixels, change: Callable[[Image.Image], Image.Image]) -> Pixels:
    planes = [np.asarray(change(Image.fromarray(plane))) for plane in image]
    return np.stack(planes)


def _random_integers(seed: list[int], count: int, below: int) -> list[int]:
    """Return integers from 0 to `below` - 1; so far below 2^64 the remainder is as good as even."""
    words = np.random.PCG64(seed).random_raw(count)
    return [int(word) % below for word in words]


def _to_bytes(levels: NDArray[np.integer]) -> Pixels:
    pixels: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return pixels


_FUNCTIONS: Mapping[str, Corrupt] = {
    "noise": _noise,
    "blur": _blur,
    "resolution": _resolution,
    "brightness": _brightness,
    "contrast": _contrast,
    "occlusion": _occlusion,
    "shift": _shift,
    "jpeg": _jpeg,
}
