"""The interface of a runtime: it opens model files; no torch at the top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.runtime.operator_times import Images, OperatorTimes
from fertool.runtime.predictor import Predictor


class Runtime(ABC):
    """A library that computes what a model file says; a member has no arguments.

    `package` is what it is installed as, whose version stands beside every measurement; `extra` is
    the extra of fertool that installs it, if it is none of its dependencies. `modules` are imported
    before the loading of a file is timed. Besides the files of its own formats a runtime can open
    those with the suffixes in `also_opens`.
    """

    package: ClassVar[str]
    extra: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]] = ()
    also_opens: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open(self, path: Path, threads: int | None, foreign: ForeignModel) -> Predictor:
        """Open a model file for the CPU; its library is imported here, not before.

        `threads` compute one pass, None leaves their number to the library. `foreign` describes
        files of other programs. Raises FertoolError for files that cannot be read, are damaged, or
        that the runtime does not open.
        """

    def limited_threads(self, count: int) -> AbstractContextManager[None]:
        """Compute with `count` threads in the block, where that is a setting of the process."""
        return nullcontext()

    def profile(
        self, path: Path, threads: int | None, foreign: ForeignModel, batches: Sequence[Images]
    ) -> OperatorTimes | None:
        """Return the time by operator over passes of the batches, uint8 [B, C, S, S] each.

        None where the library has no profiler.
        """
        return None


def failure(library: str, path: Path, action: str, error: Exception, line: int = 0) -> FertoolError:
    """Return the error for a file that a library cannot open or run, with one line of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[line]
    return FertoolError(f"{path}: {library} cannot {action} it ({reason})", "export it again")
