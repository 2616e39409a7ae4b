"""Progressive resizing: small images in early epochs, images of full size in the last ones."""

from __future__ import annotations

from fertool.config.training import TrainConfig

GROWTH_FRACTION = 0.7
"""The fraction of the epochs after which images have their full size."""
SIZE_MULTIPLE = 4
"""Image sizes are multiples of this many pixels."""


def image_size_at(config: TrainConfig, epoch: int, full_size: int) -> int:
    """Return the height and width, in pixels, of the training images of an epoch, counted from 1.

    They grow linearly from `start_size` to `full_size`, as in progressive training (Tan and Le
    2021, section 4.2); the end must be the size of the test (Touvron et al. 2019).
    """
    if not 0 < config.start_size < full_size:
        return full_size

    # The last epoch has the full size even in a run of a few epochs.
    growing_epochs = min(GROWTH_FRACTION * config.epochs, config.epochs - 1)
    progress = 1.0
    if growing_epochs:
        progress = min(1.0, (epoch - 1) / growing_epochs)
    if progress == 1:
        return full_size

    size = config.start_size + progress * (full_size - config.start_size)
    return int(size) // SIZE_MULTIPLE * SIZE_MULTIPLE
