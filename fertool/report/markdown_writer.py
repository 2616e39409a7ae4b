"""Pieces of a page in Markdown, for a repository or a model hub.

Every text that comes from outside is escaped here, and only here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from fertool.report.printable import printable_lines
from fertool.report.text_table import Fact, TextTable

_RULE = 3 * "-"
# A colon at the end aligns a column to the right.
_RULE_RIGHT = f"{_RULE}:"


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole document."""
    # Blank lines end tables and paragraphs.
    return "\n\n".join([f"# {_escape(title)}", *parts]) + "\n"


def heading(text: str, level: int = 2) -> str:
    """Return a heading of level 2 or 3."""
    return f"{'#' * level} {_escape(text)}"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; a "notice" is quoted."""
    if kind == "notice":
        return f"> {_escape(text)}"
    return _escape(text)


def table(content: TextTable) -> str:
    """Return a table."""
    rules = [_RULE_RIGHT if is_numeric else _RULE for is_numeric in content.numeric]
    lines = [_escaped_row(content.titles), _row(rules)]
    for cells in content.rows:
        lines.append(_escaped_row(cells))
    return "\n".join(lines)


def facts(pairs: Iterable[Fact]) -> str:
    """Return a table of names and values."""
    # Markdown has no table without a head.
    lines = [_row(["", ""]), _row([_RULE, _RULE])]
    for name, value in pairs:
        lines.append(_row([f"**{_escape(name)}**", _escape(value)]))
    return "\n".join(lines)


def picture(draw: Callable[[], bytes], caption: str, width: int) -> str:
    """Return nothing: a Markdown file is one text, and pictures would be files of their own."""
    return ""


def _escaped_row(cells: Iterable[str]) -> str:
    return _row([_escape(cell) for cell in cells])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows unchanged; the end of a line becomes a break."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable_lines(text)).replace("\n", "<br>")
