"""Several trainings on the way to one model: their seeds and their options."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fertool.config.option import with_values

if TYPE_CHECKING:
    from fertool.cli.options import TrainingOptions


def for_epochs(options: TrainingOptions, epochs: int) -> TrainingOptions:
    """Return the options of a round that is shorter than its command may have meant: it warms up in half at most."""
    warmup_epochs = min(options.config.warmup_epochs, epochs / 2)
    return with_values(options, {"epochs": epochs, "warmup_epochs": warmup_epochs})


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a round: that of the command in the first one, then others that depend on it."""
    if number == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/round {number}".encode()).digest()[:4], "big")
