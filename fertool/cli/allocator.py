"""Settings of the C library's memory allocator that suit training steps."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4

_LARGEST_INT = 2**31 - 1
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next request, for the rest of the process.

    By default it returns large blocks to the system, which hands them out again page by page,
    zeroed: every training step would pay for all its activations anew. No effect without glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # Blocks of their own (mmap) would be returned at once, so all memory comes from the heap.
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
    mallopt(_TOP_PAD, _TOP_PAD_BYTES)
