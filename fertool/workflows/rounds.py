"""Several trainings on the way to one model: their seeds and their options."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from fertool.config.run import RunConfig
from fertool.config.training import TrainConfig


def for_epochs(config: TrainConfig, epochs: int) -> TrainConfig:
    """Return the options of a round of so many epochs, of which at most half are warm-up."""
    # A warm-up that is as long as the round would never reach the learning rate.
    warmup_epochs = min(config.warmup_epochs, epochs / 2)
    return replace(config, epochs=epochs, warmup_epochs=warmup_epochs)


def for_round(run: RunConfig, number: int) -> RunConfig:
    """Return the options of the `number`th round, whose seed follows from the run's."""
    return replace(run, seed=round_seed(run.seed, number))


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a round: the run's own in the first one, then others that depend on it."""
    if number == 1:
        return seed
    # By a hash: seeds in a row would be those of another run's rounds.
    digest = hashlib.sha256(f"{seed}/round {number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
