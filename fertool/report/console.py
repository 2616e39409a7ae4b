"""Messages and progress of commands on stderr, and their results on stdout.

Messages never pass through Rich, which would take brackets in a path for markup and wrap long
lines. Text from files passes `printable` on its way to the terminal. A stderr that cannot be
written stops no work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from fertool.report.printable import json_text, printable, printable_lines

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.progress import Progress
    from rich.segment import Segment

PIPE_WIDTH = 100
"""Columns of a table that goes into a file or a pipe."""
_MIN_WIDTH, _MAX_WIDTH = 20, 1000
# Of no effect on tables, but without a height Rich reads the size of a terminal.
_PIPE_HEIGHT = 24
LINE_EVERY_S = 10.0
"""Seconds between lines of progress where there is no terminal to show a bar."""


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
    """Print a table on stderr, which a command shows besides its result."""
    with suppress(OSError):
        _print(content, sys.stderr)


def path_result(path: Path) -> None:
    """Print the path of a file on stdout."""
    _write_text(f"{printable(str(path))}\n", sys.stdout)


def text_lines(lines: Iterable[str]) -> None:
    """Print lines of text on stdout as they come."""
    for line in lines:
        _write_text(f"{printable(line)}\n", sys.stdout)


def json_result(value: Any) -> None:
    """Print one JSON object on stdout; all but ASCII is escaped where stdout cannot encode it."""
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json_text(value, only_ascii=True)
    sys.stdout.write(f"{text}\n")


def _print(content: RenderableType, stream: TextIO) -> None:
    from rich.console import Console

    if stream.isatty():
        _replace_unencodable_(stream)
        Console(file=stream, highlight=False, emoji=False).print(_Printable(content))
        return
    console = Console(
        width=_pipe_width(), height=_PIPE_HEIGHT, highlight=False, emoji=False, color_system=None
    )
    with console.capture() as capture:
        console.print(_Printable(content))
    # Rich fills lines with spaces, which nobody wants in a file.
    lines = [line.rstrip() for line in capture.get().split("\n")]
    _write_text("\n".join(lines), stream)


def _write_text(text: str, stream: TextIO) -> None:
    _replace_unencodable_(stream)
    stream.write(text)


def _replace_unencodable_(stream: TextIO) -> None:
    """Let a stream write a question mark for a character that it cannot encode."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")


class _Printable:
    """Renders something else without the characters in its text that a terminal would obey."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for segment in console.render(self._content, options):
            yield Segment(printable_lines(segment.text), segment.style)


def _pipe_width() -> int:
    """Return $COLUMNS within bounds where it is a number, else a default."""
    value = os.environ.get("COLUMNS", "")
    # Digits of other scripts are decimal, too.
    if not (value.isascii() and value.isdecimal()) or int(value) == 0:
        return PIPE_WIDTH
    return min(max(int(value), _MIN_WIDTH), _MAX_WIDTH)


@contextmanager
def progress(title: str, *, brief: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that moves a bar on a terminal, elsewhere prints lines.

    The last line has the time that the work took. Work that is usually `brief` prints none if it
    was.
    """
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(printable(title), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    lines = _ProgressLines(title)
    yield lines.update
    if not brief or lines.has_printed:
        lines.finish()


class _ProgressLines:
    """Lines of progress: every few seconds with the time left, and at the end of the work."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last_line = time.monotonic()
        self._done = self._total = 0
        self.has_printed = False

    def update(self, done: int, total: int) -> None:
        """Take the state of the work, and print it if there was no line for long."""
        self._done, self._total = done, total
        is_due = time.monotonic() - self._last_line >= LINE_EVERY_S
        # The last state is printed by `finish`.
        if done < total and is_due:
            self._print_line()

    def finish(self) -> None:
        """Print the last state, unless there was no work."""
        if self._total:
            self._print_line()

    def _print_line(self) -> None:
        self._last_line = time.monotonic()
        self.has_printed = True
        seconds = self._last_line - self._start
        line = f"{printable(self._title)}  {self._done}/{self._total}  {seconds:.1f} s"
        remaining = self._total - self._done
        if remaining and self._done:
            line += f", about {seconds * remaining / self._done:.0f} s left"
        _write(line)


class TrainingProgress:
    """One line for each epoch on stderr, and on a terminal a bar for the batches of this one.

    Use as a context manager and give `batch` and `epoch` to the training loop. The record that
    `epoch` receives has `epoch` (from 1), `train_loss`, `val_accuracy` and `seconds`. `part` names
    the part of a longer run and stands before each line.
    """

    def __init__(self, epochs: int, part: str = "") -> None:
        self._epochs = epochs
        self._prefix = f"{printable(part)}  " if part else ""
        self._lines = _ProgressLines(f"{self._prefix}batch")
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> TrainingProgress:
        """Show the bar."""
        if sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(f"{self._prefix}epoch", total=None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bar; the lines stay."""
        if self._bar:
            self._bar.stop()

    def batch(self, done: int, total: int) -> None:
        """Move the bar; without one print a line if there was none for long."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif done < total:
            self._lines.update(done, total)

    def epoch(self, record: Any) -> None:
        """Print the line of a finished epoch and empty the bar."""
        line = (
            f"{self._prefix}epoch {record.epoch}/{self._epochs}  loss {record.train_loss:.3f}"
            f"  acc {record.val_accuracy:.3f}  {record.seconds:.1f} s"
        )
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
            self._bar.reset(self._task, total=None)
        else:
            _write(line)
            self._lines = _ProgressLines(f"{self._prefix}batch")


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=_stderr(),
        transient=True,
    )


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _line(label: str, style: str, text: str) -> None:
    if _has_color():
        label = f"\033[{style}m{label}\033[0m"
    _write(f"{label} {printable(text)}")


def _has_color() -> bool:
    """Return whether messages are colored; see no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stderr.isatty()


def _write(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
