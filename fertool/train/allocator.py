"""What the C library does with the memory that a training step frees."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt (malloc.h)."""
_LARGEST = 2**31 - 1
_PAD = 64 * 2**20


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next request, for the rest of the process; elsewhere this does nothing.

    By default it gives large blocks back to the system, which hands them out again page by page, zeroed: every step
    of training pays for all its activations anew.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _PAD)):
            mallopt(parameter, value)
