"""How a command ends when it is stopped: by Ctrl-C, by `kill`, or because its terminal is closed.

The signal becomes an exception of the main thread. What the exception passes ends child processes
and removes temporary files, as it does after any error.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [signal.SIGINT, signal.SIGTERM]
# Windows has neither terminals that hang up nor, before Python 3.12, pipes that do not block.
if hasattr(signal, "SIGHUP"):
    _SIGNALS.append(signal.SIGHUP)
_PATIENCE_S = 5.0
"""How long the exception may take to end the process.

Native code, an endless ONNX graph for one, never sees it.
"""


class Stopped(KeyboardInterrupt):
    """A signal has come.

    Not KeyboardInterrupt itself: when that leaves an exec(), Python lets SIGINT kill the process in
    the end.
    """


class Stop:
    """What has stopped this process, if anything has; further signals change nothing."""

    def __init__(self) -> None:
        self._number: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal, as shells have it; None if there was none."""
        if self._number is None:
            return None
        return 128 + self._number

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Raise Stopped in the block when a signal comes; for the main thread.

        Signals that the parent process has set to be ignored (`nohup`, `&`) stay so. After the
        block Ctrl-C is ignored: the work is done, or what was printed about its end is enough.
        """
        reader, writer = os.pipe()
        if hasattr(os, "set_blocking"):
            os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_by_force, args=(reader,), daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._raise)
        try:
            yield
        finally:
            numbers = [signal.SIGINT]
            # After a stop all signals: Python hands them back to the system before it has ended.
            if self._number:
                numbers = _SIGNALS
            for number in numbers:
                # First a handler: of a signal that comes while it becomes an ignored one Python
                # prints a traceback.
                signal.signal(number, _pass_over)
                signal.signal(number, signal.SIG_IGN)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        for each in _SIGNALS:
            if signal.getsignal(each) != signal.SIG_IGN:
                signal.signal(each, _pass_over)
        raise Stopped


def _pass_over(number: int, frame: FrameType | None) -> None:
    """Do nothing about a signal."""


def _end_by_force(reader: int) -> None:
    """End the process some time after a signal.

    The system tells this thread of it, whatever the main thread does.
    """
    number = os.read(reader, 1)[0]
    time.sleep(_PATIENCE_S)
    os._exit(128 + number)
