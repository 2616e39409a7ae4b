"""Test-time augmentation: the views of an image whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fertool.data.pixels import as_tensor, resize
from fertool.data.storage import Chunks, assemble, iter_chunks

Tta = Literal["none", "flip", "ten-crop"]

CROP = 11 / 12
"""Side of a crop as a fraction of the image's: 44 of 48 pixels, the usual one for FER2013."""


def tta_views(images: Tensor, tta: Tta) -> Iterator[Tensor]:
    """Yield views shaped like `images` uint8 [N, C, S, S]: the images, mirror images, ten crops.

    Ten-crop: the four corners and the center, and their mirror images, enlarged to S again, since
    an exported network takes one size only.
    """
    unmirrored: Iterator[Tensor] = iter([images])
    if tta == "ten-crop":
        unmirrored = _crops(images)
    for view in unmirrored:
        yield view
        # Each beside its mirror image, so that the crop need not be made twice.
        if tta != "none":
            yield _map_images(view, lambda images: images.flip(-1))


def _crops(images: Tensor) -> Iterator[Tensor]:
    """Yield the four corners and the center, enlarged to the images' size, uint8 [N, C, S, S]."""
    size = images.shape[-1]
    side = round(size * CROP)
    rest = size - side
    corners = ((0, 0), (0, rest), (rest, 0), (rest, rest))
    center = (rest // 2, rest // 2)
    for top, left in (*corners, center):
        yield _map_images(images, partial(_enlarged_crop, top=top, left=left, side=side))


def _enlarged_crop(images: Tensor, top: int, left: int, side: int) -> Tensor:
    # An exported network takes images of one size, so that a smaller crop has to fill it.
    return resize(images[..., top : top + side, left : left + side], images.shape[-1])


def _map_images(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return images of the same shape, changed in chunks: a view may be larger than memory."""
    pixels = images.numpy()

    def parts() -> Iterator[NDArray[np.uint8]]:
        for chunk in iter_chunks(pixels):
            yield change(as_tensor(chunk)).numpy()

    return as_tensor(assemble(Chunks(pixels.shape, parts)))
