"""What commands say while they work, on stderr, and how they print a result, on stdout.

Messages never pass through Rich, which would take brackets in a path for markup and wrap long lines. What a file says
passes `plain` on its way to the terminal. A stderr that cannot be written stops no work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from fertool.report.plain import json_text, plain, plain_lines

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.segment import Segment

PIPE_WIDTH = 100
"""Columns of a table that goes into a file or a pipe."""
_LEAST_WIDTH, _MOST_WIDTH = 20, 1000
_PIPE_HEIGHT = 24
"""Of no effect, but without it Rich reads the size of a terminal."""
LINE_EVERY_S = 10.0
"""How often long work says how far it is where there is no terminal to show a bar."""


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


def story(content: RenderableType) -> None:
    """Print a table on stderr: what a command has to tell besides its result."""
    with suppress(OSError):
        _print(content, sys.stderr)


def path_result(path: Path) -> None:
    """Print the path of a file on stdout."""
    _write_text(f"{plain(str(path))}\n", sys.stdout)


def json_result(value: Any) -> None:
    """Print one JSON object on stdout; where the terminal lacks some sign, all but ASCII is escaped."""
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json_text(value, only_ascii=True)
    sys.stdout.write(f"{text}\n")


def _print(content: RenderableType, stream: TextIO) -> None:
    from rich.console import Console

    if stream.isatty():
        _replace_missing_signs(stream)
        Console(file=stream, highlight=False, emoji=False).print(_Plain(content))
        return
    console = Console(
        width=_pipe_width(), height=_PIPE_HEIGHT, highlight=False, emoji=False, color_system=None
    )
    with console.capture() as capture:
        console.print(_Plain(content))
    _write_text("\n".join(line.rstrip() for line in capture.get().split("\n")), stream)


def _write_text(text: str, stream: TextIO) -> None:
    _replace_missing_signs(stream)
    stream.write(text)


def _replace_missing_signs(stream: TextIO) -> None:
    """A terminal without some sign gets a question mark in its place, not a traceback."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")


class _Plain:
    """Renders something else, and takes out of its text whatever a terminal would obey."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for segment in console.render(self._content, options):
            yield Segment(plain_lines(segment.text), segment.style)


def _pipe_width() -> int:
    """Return $COLUMNS where it is a number of use."""
    asked = os.environ.get("COLUMNS", "")
    if not (asked.isascii() and asked.isdecimal()) or int(asked) == 0:
        return PIPE_WIDTH
    return min(max(int(asked), _LEAST_WIDTH), _MOST_WIDTH)


@contextmanager
def progress(title: str, *, brief: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Give a callback (done, total) that moves a bar on a terminal; elsewhere it prints a line now and then.

    The last line there says how long the work took, unless it is usually `brief` and was.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(plain(title), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    lines = _ProgressLines(title)
    yield lines.move
    if not brief or lines.has_said:
        lines.end()


class _ProgressLines:
    """Says how far some work is: every few seconds, and at its end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._done = self._total = 0
        self.has_said = False

    def move(self, done: int, total: int) -> None:
        """Take note of where the work is, and say it if nothing has been said for long."""
        self._done, self._total = done, total
        if done < total and time.monotonic() - self._last >= LINE_EVERY_S:
            self._say()

    def end(self) -> None:
        """Say what was done, if anything was."""
        if self._total:
            self._say()

    def _say(self) -> None:
        self._last = time.monotonic()
        self.has_said = True
        _write(
            f"{plain(self._title)}  {self._done}/{self._total}  {self._last - self._start:.1f} s"
        )


class TrainingProgress:
    """One line for each epoch on stderr, and on a terminal a bar for the batches of the present one.

    Use as a context manager and give `batch` and `epoch` to the training loop. What `epoch` receives has `epoch` (from
    1), `train_loss`, `val_accuracy` and `seconds`. `part`, the part of a longer run, stands before each line.
    """

    def __init__(self, epochs: int, part: str = "") -> None:
        self._epochs = epochs
        self._part = f"{plain(part)}  " if part else ""
        self._lines = _ProgressLines(f"{self._part}batch")
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
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away; the lines stay."""
        if self._bar:
            self._bar.stop()

    def batch(self, done: int, total: int) -> None:
        """Move the bar; without one say now and then how far the epoch is."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif done < total:
            self._lines.move(done, total)

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
            _write(line)
            self._lines = _ProgressLines(f"{self._part}batch")


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
    coloured = (
        sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )
    shown = f"\033[{style}m{label}\033[0m" if coloured else label
    _write(f"{shown} {plain(text)}")


def _write(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
