"""A limit on the memory that an ONNX graph may ask for: it may be anybody's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_BYTES_PER_THREAD = 80 << 20
"""Address space of a thread's stack and of its heap in glibc."""


@contextlib.contextmanager
def limit_growth(extra_bytes: int) -> Iterator[None]:
    """Limit this process's growth, within the block, to so many bytes.

    The limit is on the address space of the whole process, and on Linux only. The stacks and heaps
    of as many threads as there are cores are added to it.
    """
    # Neither the module nor /proc exists on every system.
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    thread_bytes = _BYTES_PER_THREAD * (os.cpu_count() or 1)
    limit = pages * resource.getpagesize() + extra_bytes + thread_bytes
    for bound in (soft, hard):
        if bound != resource.RLIM_INFINITY:
            limit = min(limit, bound)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
