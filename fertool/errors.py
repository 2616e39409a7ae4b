"""Errors that a user can correct: each has a message about what is wrong and where, and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

_MOST_PROBLEMS = 20
"""Problems that one message lists."""


class FertoolError(Exception):
    """The work failed for a reason that the user can act on (exit code 1).

    `message` names the file, line or option and the value; `hint` is what to do next. Options are
    named by their fields in double backticks (``epochs=5``), which the command line shows as flags.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FertoolError):
    """An option, an argument or a recipe asks for what makes no sense (exit code 2)."""

    exit_code = 2


class LimitError(FertoolError):
    """The work is done, and its result misses a limit that the user set (exit code 3)."""

    exit_code = 3


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put `where`, a file or a model, before the message of a FertoolError inside the block."""
    try:
        yield
    except FertoolError as error:
        # Inner functions may have named it already.
        if not error.message.startswith(where):
            error.message = f"{where}: {error.message}"
            error.args = (error.message,)
        raise


def join_problems(problems: Sequence[str]) -> str:
    """Return the first of several problems in one text, and how many more there are."""
    text = "; ".join(problems[:_MOST_PROBLEMS])
    more = len(problems) - _MOST_PROBLEMS
    if more > 0:
        text += f"; and {more} more"
    return text


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """Return the error for a name outside `choices`, with the nearest match first."""
    known = sorted(choices)
    hint = f"choices: {', '.join(known)}"
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        hint = f"did you mean '{nearest[0]}'? {hint}"
    return UsageError(f"unknown {kind} '{name}'", hint)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether memory is lacking, as Python, torch's allocator or a GPU's says it."""
    if isinstance(error, MemoryError):
        return True
    # torch has no class of its own for it.
    text = str(error)
    is_allocation = "can't allocate memory" in text or "out of memory" in text
    return isinstance(error, RuntimeError) and is_allocation
