"""One command in several processes, as torchrun starts them: which one prints, also of failures.

All processes run the same command line. The main one prints and writes; the others do their part of
the training.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

from fertool.workflows.processes import threads_per_process

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_REPORT_TIMEOUT_S = 5.0
"""How long a process waits for another to say what went wrong."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, and for a failure what to tell the user."""

    code: int
    message: str = ""
    hint: str = ""


class MultiProcessRun:
    """The processes of one command, of which this is one."""

    def __init__(self) -> None:
        self._is_main = os.environ["RANK"] == "0"
        self._store: Store | None = None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect to the others for a block; all but the main process are silent in it."""
        with ExitStack() as stack:
            if not self._is_main:
                stack.enter_context(redirect_stdout(StringIO()))
                stack.enter_context(redirect_stderr(StringIO()))
            import torch

            from fertool import distributed

            # The launcher ends the others when one has failed; they leave by an exception.
            signal.signal(signal.SIGTERM, _stopped)
            if threads := threads_per_process():
                torch.set_num_threads(threads)
            self._store = distributed.connect_store()
            stack.enter_context(distributed.process_group(self._store))
            yield

    def report(self, outcome: Outcome, print_outcome: Callable[[Outcome], None]) -> int:
        """Print a failure unless another process has; returns the exit code, the same in all."""
        if outcome.code == 0:
            return 0
        # As soon as one has ended the launcher stops the others, which have yet to learn why.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        is_first = True
        try:
            if self._store and self._store.add("failures", 1) > 1:
                self._store.set_timeout(timedelta(seconds=_REPORT_TIMEOUT_S))
                return int(self._store.get("exit code"))
        except RuntimeError:
            # The launcher, which keeps the store, is gone, or the process that was to print.
            is_first = self._is_main
        if is_first:
            print_outcome(outcome)
            if self._store:
                with suppress(RuntimeError):
                    self._store.set("exit code", str(outcome.code))
        return outcome.code


def _stopped(number: int, frame: Any) -> None:
    from fertool.distributed import LostProcessError

    raise LostProcessError(
        "stopped by the launcher, as happens when another process of the run has ended"
    )
