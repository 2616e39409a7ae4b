"""Seeds of each epoch's random numbers, so that a resumed run draws as an undisturbed one."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager

import torch

from fertool import distributed


def derived_seed(seed: int, epoch: int, stream: str) -> int:
    """Return the seed of one random stream in one epoch of a run."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    # Shifted, since manual_seed takes 63 bits.
    return int.from_bytes(digest[:8], "big") >> 1


def fork_rng(device: torch.device) -> AbstractContextManager[None]:
    """Restore the global generators, of the CPU and of this device, after the block."""
    # Named, since by default torch saves and restores the state of every GPU of the machine.
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)


def dropout_stream() -> str:
    """Return the name of this rank's stream for dropout: each rank drops units of its own."""
    if distributed.is_main_process():
        return "dropout"
    return f"dropout {distributed.rank()}"
