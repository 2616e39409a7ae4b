"""Normal numbers that are the same on every machine: made of integers, not of a library's draws."""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UNIT = 4096
"""What stands for a standard deviation of 1."""
_QUANTILES = 1 << 16
_POOL = 1 << 20


@cache
def _quantiles() -> NDArray[np.int32]:
    """Return the normal quantiles of 65,536 equal parts, in 1/4096, rounded to integers."""
    # NormalDist is plain arithmetic, and rounding hides the last bits in which machines differ.
    inverse = NormalDist().inv_cdf
    values = [round(UNIT * inverse((k + 0.5) / _QUANTILES)) for k in range(_QUANTILES)]
    return np.array(values, np.int32)


def normal_integers(count: int, seed: int | list[int]) -> NDArray[np.int32]:
    """Return `count` normal numbers of mean 0 and standard deviation `UNIT`, int32 [count]."""
    # Raw output of the generator, which NumPy promises to keep; its distributions it does not.
    words = np.random.PCG64(seed).random_raw((count + 3) // 4)
    # Four numbers of each word, the lowest bits first whichever way the processor stores them.
    indices = words.astype("<u8").view("<u2")[:count]
    numbers: NDArray[np.int32] = _quantiles()[indices]
    return numbers


@cache
def noise_pool(least: int, device: torch.device) -> Tensor:
    """Return standard normal numbers float32 [L] to take windows of up to `least` numbers from.

    L is at least four times as large, so that two windows are rarely the same.
    """
    count = max(_POOL, 4 * least)
    numbers = normal_integers(count, 0).astype(np.float32) / UNIT
    return torch.from_numpy(numbers).to(device)
