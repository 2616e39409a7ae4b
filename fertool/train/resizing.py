"""Progressive resizing: small images while the network learns the coarse, whole ones in the end."""

from __future__ import annotations

from fertool.config.training import TrainConfig

GROWTH = 0.7
"""The share of the epochs after which images have their full size."""
GRAIN = 4
"""Sides grow by multiples of this many pixels."""


def side_at(config: TrainConfig, epoch: int, full: int) -> int:
    """Return the side of the training images of an epoch, numbered from 1, in pixels.

    It grows linearly from `start_size` to `full`, as training with growing images does that ends at the size of the
    test (Tan and Le 2021, section 4.2; Touvron et al. 2019 on why it has to).
    """
    if not 0 < config.start_size < full:
        return full
    growing = min(GROWTH * config.epochs, config.epochs - 1)
    share = min(1.0, (epoch - 1) / growing) if growing else 1.0
    side = config.start_size + share * (full - config.start_size)
    return full if share == 1 else int(side) // GRAIN * GRAIN
