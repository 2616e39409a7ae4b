"""What the benchmarks that train in turns share: drawn faces, the turns, and what machine it is."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from fertool.data import DataOptions, FaceDataset, open_data
from fertool.spec import InputSpec

VAL_IMAGES = 64


def faces(images: int) -> tuple[FaceDataset, FaceDataset]:
    """Return drawn faces to train on, as many as asked for, and a few to validate on."""
    source = open_data(
        f"synth:{max(70, math.ceil(images / 0.8) + 10)}", DataOptions(size=InputSpec().size)
    )
    train, val = source.split("train"), source.split("val")
    return train.subset(torch.arange(images)), val.subset(torch.arange(min(VAL_IMAGES, len(val))))


def take_turns(methods: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every method once to warm up, then all in turns.

    Returns the seconds that they say they took.
    """
    for method in methods.values():
        method()
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            seconds[name].append(method())
    return seconds


def machine() -> dict[str, Any]:
    """Return what a figure of speed depends on."""
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    extras = [
        name for name in ("avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16") if able.get(name)
    ]
    cpu = ", ".join([torch.backends.cpu.get_cpu_capability(), *extras])
    return {"cores": os.cpu_count(), "torch": torch.__version__, "cpu": cpu}


class Apart:
    """A method that lives in a process of its own: `make(*arguments)` gives it there, and calls go
    there.

    What one method does to its process, as the allocator's settings, does not reach the others.
    """

    def __init__(self, make: Callable[..., Callable[[], float]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()

    def __call__(self) -> float:
        """Return what the method says."""
        self._pipe.send(True)
        seconds: float = self._pipe.recv()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._pipe.send(False)
        self._process.join()


def _serve(
    pipe: Connection, make: Callable[..., Callable[[], float]], arguments: tuple[Any, ...]
) -> None:
    method = make(*arguments)
    while pipe.recv():
        pipe.send(method())
