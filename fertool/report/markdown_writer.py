"""Pieces of a page in Markdown, for a repository or a model hub.

Every text that comes from outside is escaped here, and only here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from fertool.report.printable import printable_lines
from fertool.report.text_table import Card, Fact, Section, TextTable, Tile

_RULE = 3 * "-"
# A colon at the end aligns a column to the right.
_RULE_RIGHT = f"{_RULE}:"


def page(title: str, head: Iterable[str], sections: Sequence[Section]) -> str:
    """Return a whole document; sites that show Markdown make its table of contents themselves."""
    parts = [f"# {_escape(title)}", *head]
    for section in sections:
        parts.append(heading(section.title, 2))
        parts += section.parts
    # Blank lines end tables and paragraphs.
    return "\n\n".join(parts) + "\n"


def heading(text: str, level: int = 3) -> str:
    """Return a heading, by default one inside a section."""
    return f"{'#' * level} {_escape(text)}"


def folded(title: str, *parts: str) -> str:
    """Return parts under their heading."""
    return "\n\n".join([heading(title), *parts])


def beside(*parts: str) -> str:
    """Return parts below each other."""
    return "\n\n".join(part for part in parts if part)


def verdict(text: str) -> str:
    """Return the sentence that stands above everything."""
    return f"**{_escape(text)}**"


def cards(figures: Sequence[Card]) -> str:
    """Return nothing: in plain text these figures are in the tables."""
    return ""


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


def matrix(content: TextTable, caption: str) -> str:
    """Return nothing: without its colors a matrix of percentages shows little."""
    return ""


def picture(draw: Callable[[], bytes], caption: str) -> str:
    """Return nothing: a Markdown file is one text, and pictures would be files of their own."""
    return ""


def tiles(pictures: Sequence[Tile]) -> str:
    """Return nothing, for the same reason."""
    return ""


def _escaped_row(cells: Iterable[str]) -> str:
    return _row([_escape(cell) for cell in cells])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows unchanged; the end of a line becomes a break."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable_lines(text)).replace("\n", "<br>")
