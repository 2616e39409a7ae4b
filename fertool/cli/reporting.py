"""The reporter of the command line: lines and bars on stderr, options named as flags."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fertool.cli.flags import with_flags

if TYPE_CHECKING:
    from fertool.reporter import EpochReporter, OnProgress


class ConsoleReporter:
    """Prints what workflows tell."""

    # Imports in the methods: Rich is not needed before there is something to print.
    def note(self, message: str) -> None:
        """Print one `note:` line."""
        from fertool.report.console import note

        note(with_flags(message))

    def warn(self, message: str) -> None:
        """Print one `warning:` line."""
        from fertool.report.console import warn

        warn(with_flags(message))

    def progress(self, title: str, *, brief: bool = False) -> AbstractContextManager[OnProgress]:
        """Show a bar on a terminal, elsewhere a line now and then."""
        from fertool.report.console import progress

        return progress(title, brief=brief)

    def training(self, epochs: int, label: str = "") -> AbstractContextManager[EpochReporter]:
        """Print a line for each epoch."""
        from fertool.report.console import TrainingProgress

        return TrainingProgress(epochs, label)


CONSOLE = ConsoleReporter()
