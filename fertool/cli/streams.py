"""The standard streams as a daemon, a full disk or a closed pipe may have them."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from fertool.errors import FertoolError


def open_missing() -> None:
    """Put the null device where a standard stream was closed (`>&-`).

    Else the next file that is opened, a model for one, would take its number and receive what
    libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r+" if number else "r"
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, null)


def forget_useless_size() -> None:
    """Take $COLUMNS and $LINES out of the environment where they are no positive numbers.

    Rich would fail on them.
    """
    for name in ("COLUMNS", "LINES"):
        asked = os.environ.get(name, "")
        # Digits of other scripts are decimal, too.
        is_number = asked.isascii() and asked.isdecimal() and len(asked) < 6
        if not is_number or int(asked) == 0:
            os.environ.pop(name, None)


def allow_narrow_charsets() -> None:
    """Let a standard stream write `?` for what its charset lacks.

    Python would end a help text there.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            with suppress(ValueError):
                "…─".encode(stream.encoding)
                continue
            stream.reconfigure(errors="replace")


def flush_stdout() -> None:
    """Write out what stdout still holds.

    Raises FertoolError for a full disk, BrokenPipeError for a closed pipe.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FertoolError(
            f"stdout: cannot write ({error.strerror})", "free some space or choose another place"
        ) from None


def abandon_broken() -> None:
    """Give up what cannot be written to stdout and stderr.

    Python would end with a message of its own.
    """
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
