"""What every kind of source gives the importer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fertool.graph.capture import CapturedGraph
from fertool.graph.network import ImageShape


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared: the side in pixels, mean and deviation per channel, from 0 to 1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class SourceNetwork:
    """A network as its source has it.

    `reference` computes the source's own logits, which the imported network is compared with.
    `preprocessing` is None for sources that do not tell it.
    """

    captured: CapturedGraph
    image: ImageShape
    reference: Callable[[Tensor], Tensor]
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()


def given_image_shape(size: int | None, channels: int | None) -> ImageShape | None:
    """Return the shape of one image for a file that leaves it open; None where none is given."""
    if size is None:
        return None
    # Most networks of other libraries were trained on color images.
    return (channels or 3, size, size)
