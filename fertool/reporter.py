"""What long work tells whoever waits for it: notes, warnings and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

OnProgress = Callable[[int, int], None]
"""Receives how many parts of the work are done, and how many there are."""


class EpochReporter(Protocol):
    """Receives the progress of one training."""

    def batch(self, done: int, total: int) -> None:
        """Take the number of finished batches of the current epoch."""

    def epoch(self, record: Any) -> None:
        """Take the `EpochRecord` of a finished epoch."""


class Reporter(Protocol):
    """Receives what a workflow tells while it runs; options in messages are ``field=value``."""

    def note(self, message: str) -> None:
        """Take a remark."""

    def warn(self, message: str) -> None:
        """Take a remark about something that is probably not what the user wants."""

    def progress(self, title: str, *, brief: bool = False) -> AbstractContextManager[OnProgress]:
        """Return a block whose value takes the progress of some work, usually `brief` or not."""

    def training(self, epochs: int, label: str = "") -> AbstractContextManager[EpochReporter]:
        """Return a block whose value takes the progress of a training of so many epochs."""


class _SilentEpochs:
    def batch(self, done: int, total: int) -> None:
        pass

    def epoch(self, record: Any) -> None:
        pass


class SilentReporter:
    """Ignores everything: what the functions of the library have unless they are given another."""

    def note(self, message: str) -> None:
        """Ignore a remark."""

    def warn(self, message: str) -> None:
        """Ignore a warning."""

    @contextmanager
    def progress(self, title: str, *, brief: bool = False) -> Iterator[OnProgress]:
        """Ignore progress."""
        yield lambda done, total: None

    @contextmanager
    def training(self, epochs: int, label: str = "") -> Iterator[EpochReporter]:
        """Ignore epochs."""
        yield _SilentEpochs()


SILENT: Reporter = SilentReporter()


@contextmanager
def noting_resume(reporter: Reporter, states: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """When the block is interrupted, note the first of the `states`, which a later run resumes."""
    try:
        yield
    except KeyboardInterrupt:
        state = next(iter(states()), None)
        if state is not None:
            reporter.note(f"stopped; the same command goes on from {state}")
        raise
