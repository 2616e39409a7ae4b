"""How many processes a launcher such as torchrun has started, and the threads for each."""

from __future__ import annotations

import os
from pathlib import Path

from fertool.errors import UsageError

_SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def process_count() -> int:
    """Return the number of processes that a launcher has started; 1 without one."""
    # All of them: a shell may have a RANK or a WORLD_SIZE of its own.
    if all(name in os.environ for name in _SET_BY_LAUNCHERS):
        return int(os.environ["WORLD_SIZE"])
    return 1


def require_one_process(what: str) -> None:
    """Raise UsageError when there are several processes."""
    count = process_count()
    if count > 1:
        raise UsageError(
            f"{what} runs in one process, not in {count}",
            "run it without torchrun; what trains can be shared: train-teacher, distill, "
            "prune ``epochs``",
        )


def threads_per_process() -> int | None:
    """Return this process's fraction of the cores; None when the user has set OMP_NUM_THREADS.

    torchrun sets it to 1 for the processes it starts; what its own environment held was the user's.
    """
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        # No such thing on this system: whoever has set it, it counts.
        launcher = []
        if "OMP_NUM_THREADS" in os.environ:
            launcher = [b"OMP_NUM_THREADS=?"]
    if any(entry.startswith(b"OMP_NUM_THREADS=") for entry in launcher):
        return None
    cores = os.cpu_count() or 1
    # A container or a scheduler may leave only some of them to a process.
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
