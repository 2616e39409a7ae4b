"""Text from files and names, for people to see: nothing in it that a terminal or a page obeys, or that nobody sees.

Class names, options, paths and messages of libraries may hold escape sequences, marks that turn the direction of
writing, signs without width, and the halves of surrogate pairs that stand for bytes which are not UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any

_NOT_PLAIN_ASCII = re.compile(r"[^\n\x20-\x7e]")


def plain(text: str) -> str:
    """Return text on one line: what does not print becomes a space, half a surrogate pair U+FFFD."""
    return text if text.isprintable() else "".join(map(_visible, text))


def plain_lines(text: str) -> str:
    """Return the same for text of several lines."""
    return "\n".join(map(plain, text.split("\n")))


def json_text(value: Any, *, only_ascii: bool = False) -> str:
    """Return a value as indented JSON in which what does not print is escaped, and nothing else unless `only_ascii`.

    Raises ValueError for numbers that are not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=only_ascii, allow_nan=False)
    return _NOT_PLAIN_ASCII.sub(_escaped_unless_printable, text)


def _visible(sign: str) -> str:
    if sign.isprintable():
        return sign
    return "\ufffd" if "\ud800" <= sign <= "\udfff" else " "


def _escaped_unless_printable(match: re.Match[str]) -> str:
    sign = match[0]
    if sign.isprintable():
        return sign
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("(....)", r"\\u\1", units)
