"""How many processes a launcher such as torchrun has started for the same work."""

from __future__ import annotations

import os

from fertool.errors import UsageError

_SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def process_count() -> int:
    """Return the number of processes that a launcher has started; 1 without one."""
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
