"""Test-time augmentation: the views of an image whose answers are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from fertool.data.pixels import resize

Tta = Literal["none", "flip", "ten-crop"]

CROP = 11 / 12
"""Side of a crop as a share of the image's: 44 of 48 pixels, the usual one for FER2013."""


def views(images: Tensor, tta: Tta) -> Iterator[Tensor]:
    """Yield batches shaped like `images` uint8 [N, C, S, S]: the images, their mirror images, or ten crops.

    Ten-crop: the four corners and the centre, and their mirror images, enlarged to S again, since an exported network
    takes one size only.
    """
    for view in _crops(images) if tta == "ten-crop" else (images,):
        yield view
        if tta != "none":
            yield view.flip(-1)


def _crops(images: Tensor) -> Iterator[Tensor]:
    size = images.shape[-1]
    side = round(size * CROP)
    rest = size - side
    for top, left in ((0, 0), (0, rest), (rest, 0), (rest, rest), (rest // 2, rest // 2)):
        yield resize(images[..., top : top + side, left : left + side], size)
