"""Text from files and names, without characters that a terminal or a page would obey.

Class names, options, paths and messages of libraries may hold escape sequences, marks that turn the
direction of writing, characters without width, and the halves of surrogate pairs that stand for
bytes which are not UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any

_NOT_PRINTABLE_ASCII = re.compile(r"[^\n\x20-\x7e]")


def printable(text: str) -> str:
    """Return text on one line that is all visible.

    Characters that do not print become spaces, halves of surrogate pairs U+FFFD.
    """
    # Nearly all text is printable already, which this finds out far faster than the loop.
    if text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def printable_lines(text: str) -> str:
    """Return the same for text of several lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def json_text(value: Any, *, only_ascii: bool = False) -> str:
    """Return a value as indented JSON in which characters that do not print are escaped.

    With `only_ascii` all others but ASCII are escaped, too. Raises ValueError for numbers that are
    not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=only_ascii, allow_nan=False)
    return _NOT_PRINTABLE_ASCII.sub(_escaped_unless_printable, text)


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, with the same characters escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_PRINTABLE_ASCII.sub(_escaped_unless_printable, text)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    is_surrogate = "\ud800" <= character <= "\udfff"
    return "\ufffd" if is_surrogate else " "


def _escaped_unless_printable(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    # JSON escapes UTF-16: a character outside the first plane is two escapes.
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("(....)", r"\\u\1", units)
