"""Errors that a user can correct: each has a message about what is wrong and where, and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """The command line or a recipe asks for something that makes no sense (exit code 2)."""

    exit_code = 2


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> UsageError:
    """Return the error for a name outside `choices`, with the nearest match first."""
    known = sorted(choices)
    hint = f"choices: {', '.join(known)}"
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        hint = f"did you mean '{nearest[0]}'? {hint}"
    return UsageError(f"unknown {kind} '{name}'", hint)
