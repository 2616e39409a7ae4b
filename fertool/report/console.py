"""What commands say while they work, on stderr, and how they print a result, on stdout.

Messages never pass through Rich, which would take brackets in a path for markup and wrap long lines.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

PIPE_WIDTH = 100
"""Columns of a table that goes into a file or a pipe."""


def error(message: str, hint: str = "") -> None:
    """Print one `error:` line and, with a hint, one `hint:` line on stderr."""
    _line("error:", "1;31", message)
    if hint:
        _line("hint:", "1;36", hint)


def warn(message: str) -> None:
    """Print one `warning:` line on stderr."""
    _line("warning:", "1;33", message)


def note(message: str) -> None:
    """Print one `note:` line on stderr."""
    _line("note:", "2", message)


def result(content: RenderableType) -> None:
    """Print a table or text on stdout."""
    _print(content, sys.stdout)


def _print(content: RenderableType, stream: TextIO) -> None:
    from rich.console import Console

    if isinstance(stream, TextIOWrapper):
        # A terminal without some sign gets a question mark in its place, not a traceback.
        stream.reconfigure(errors="replace")
    if stream.isatty():
        Console(file=stream, highlight=False, emoji=False).print(content)
        return
    width = int(os.environ.get("COLUMNS") or PIPE_WIDTH)
    console = Console(width=width, highlight=False, emoji=False, color_system=None)
    with console.capture() as capture:
        console.print(content)
    stream.write("\n".join(line.rstrip() for line in capture.get().split("\n")))


def story(content: RenderableType) -> None:
    """Print a table on stderr: what a command has to tell besides its result."""
    _print(content, sys.stderr)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that moves a bar on a terminal; elsewhere print one line at the end."""
    start, counts = time.monotonic(), (0, 0)
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(_plain(title), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return

    def remember(done: int, total: int) -> None:
        nonlocal counts
        counts = (done, total)

    yield remember
    if counts[1]:
        print(f"{_plain(title)}  {counts[0]}/{counts[1]}  {time.monotonic() - start:.1f} s", file=sys.stderr)


class TrainingProgress:
    """One line for each epoch on stderr, and on a terminal a bar for the batches of the present one.

    Use as a context manager and give `batch` and `epoch` to the training loop. What `epoch` receives has `epoch` (from
    1), `train_loss`, `val_accuracy` and `seconds`. `part`, the part of a longer run, stands before each line.
    """

    def __init__(self, epochs: int, part: str = "") -> None:
        self._epochs = epochs
        self._part = f"{part}  " if part else ""
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> TrainingProgress:
        """Show the bar."""
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(f"{self._part}epoch", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away; the lines stay."""
        if self._bar:
            self._bar.stop()

    def batch(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)

    def epoch(self, record: Any) -> None:
        """Print the line of a finished epoch and empty the bar."""
        line = (
            f"{self._part}epoch {record.epoch}/{self._epochs}  loss {record.train_loss:.3f}"
            f"  acc {record.val_accuracy:.3f}  {record.seconds:.1f} s"
        )
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
            self._bar.reset(self._task, total=None)
        else:
            print(line, file=sys.stderr, flush=True)


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=_stderr(),
        transient=True,
    )


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _line(label: str, style: str, text: str) -> None:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    shown = f"\033[{style}m{label}\033[0m" if coloured else label
    print(f"{shown} {_plain(text)}", file=sys.stderr)


def _plain(text: str) -> str:
    """One line without control characters, which a file name may contain."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)
