"""Flags in place of the fields in double backticks that messages of the library name."""

from __future__ import annotations

import re

_OPTION = re.compile(r"``([a-z][a-z0-9_]*)(?:=([^`]*))?``")


def flag(name: str, value: str | None = None) -> str:
    """Return an option as it is typed: `--epochs 5`; of a switch `--packed` or `--no-packed`."""
    dashed = name.replace("_", "-")
    if value == "False":
        return f"--no-{dashed}"
    if value is None or value == "True":
        return f"--{dashed}"
    return f"--{dashed} {value}"


def with_flags(message: str) -> str:
    """Return a message in which each option, ``epochs`` or ``epochs=5``, has become a flag."""
    return _OPTION.sub(lambda match: flag(match[1], match[2]), message)
