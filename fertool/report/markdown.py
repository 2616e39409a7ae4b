"""Pieces of a page in Markdown, for a repository or a model hub. Every text from outside is escaped here, only here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from fertool.report.grids import Fact, Grid
from fertool.report.plain import plain_lines


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole document."""
    return "\n\n".join([f"# {_escaped(title)}", *(part for part in parts if part)]) + "\n"


def heading(text: str, level: int = 2) -> str:
    """Return a heading of level 2 or 3."""
    return f"{'#' * level} {_escaped(text)}"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; a "notice" is quoted."""
    return f"> {_escaped(text)}" if kind == "notice" else _escaped(text)


def table(grid: Grid) -> str:
    """Return a table."""
    rule = ["---:" if header.startswith(">") else "---" for header in grid.headers]
    return _table([header.removeprefix(">") for header in grid.headers], rule, grid.rows)


def facts(pairs: Iterable[Fact]) -> str:
    """Return a table of names and values."""
    return _table(
        ["", ""],
        ["---", "---"],
        [(f"**{_escaped(name)}**", value) for name, value in pairs],
        raw_first=True,
    )


def picture(draw: Callable[[], bytes], caption: str, width: int) -> str:
    """Return nothing: a Markdown file is one text, and pictures would be files of their own."""
    return ""


def _table(
    headers: Sequence[str],
    rule: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    raw_first: bool = False,
) -> str:
    lines = [[_escaped(header) for header in headers], rule]
    lines += [
        [cell if raw_first and column == 0 else _escaped(cell) for column, cell in enumerate(row)]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is; a line's end becomes a break."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", plain_lines(text)).replace("\n", "<br>")
