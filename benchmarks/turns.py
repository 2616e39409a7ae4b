"""What the benchmarks that train in turns share: drawn faces, and the turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from fertool.data import DataOptions, FaceDataset, open_data
from fertool.spec import InputSpec

VAL_IMAGES = 64


def faces(images: int) -> tuple[FaceDataset, FaceDataset]:
    """Return drawn faces to train on, as many as asked for, and a few to validate on."""
    source = open_data(f"synth:{max(70, math.ceil(images / 0.8) + 10)}", DataOptions(size=InputSpec().size))
    train, val = source.split("train"), source.split("val")
    return train.subset(torch.arange(images)), val.subset(torch.arange(min(VAL_IMAGES, len(val))))


def take_turns(methods: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every method once to warm up, then all in turns; returns the seconds that they say they took."""
    for method in methods.values():
        method()
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            seconds[name].append(method())
    return seconds
