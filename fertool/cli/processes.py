"""One command in several processes, as torchrun starts them: who speaks, and how a failure is told once.

All processes run the same command line. The first one prints and writes; the others do their part of the training.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_UNTIL_TOLD_S = 5.0
"""How long a process waits for another to say what went wrong."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and for a failure what to tell the user."""

    code: int
    message: str = ""
    hint: str = ""


class Crew:
    """The processes of one command, of which this is one."""

    def __init__(self) -> None:
        self._leads = os.environ["RANK"] == "0"
        self._store: Store | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be connected to the others; all but the first process are silent."""
        with ExitStack() as stack:
            if not self._leads:
                stack.enter_context(redirect_stdout(StringIO()))
                stack.enter_context(redirect_stderr(StringIO()))
            import torch

            from fertool import distributed

            signal.signal(signal.SIGTERM, _stopped)
            if threads := threads_each():
                torch.set_num_threads(threads)
            self._store = distributed.connect_store()
            stack.enter_context(distributed.process_group(self._store))
            yield

    def report(self, outcome: Outcome, tell: Callable[[Outcome], None]) -> int:
        """Tell a failure unless another process has; returns the exit code, the same in all of them."""
        if outcome.code == 0:
            return 0
        # As soon as one has ended the launcher stops the others, which have yet to learn why.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        mine = True
        try:
            if self._store and self._store.add("failures", 1) > 1:
                self._store.set_timeout(timedelta(seconds=_UNTIL_TOLD_S))
                return int(self._store.get("told"))
        except RuntimeError:
            # The launcher, which keeps the store, is gone, or the one that was to tell.
            mine = self._leads
        if mine:
            tell(outcome)
            if self._store:
                with suppress(RuntimeError):
                    self._store.set("told", str(outcome.code))
        return outcome.code


def threads_each() -> int | None:
    """Return this process's share of the machine's cores, or None when the user has set OMP_NUM_THREADS.

    torchrun sets it to 1 for the processes it starts; what its own environment held was the user's.
    """
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:  # no such thing on this system
        launcher = [b"OMP_NUM_THREADS=?"] if "OMP_NUM_THREADS" in os.environ else []
    if any(entry.startswith(b"OMP_NUM_THREADS=") for entry in launcher):
        return None
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _stopped(number: int, frame: Any) -> None:
    from fertool.distributed import LostProcessError

    raise LostProcessError(
        "stopped by the launcher, as happens when another process of the run has ended"
    )
