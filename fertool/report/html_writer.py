"""Pieces of a self-contained page in HTML.

Every text that comes from outside is escaped here, and only here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

from fertool.report.printable import printable_lines
from fertool.report.text_table import Card, Fact, Section, TextTable, Tile

STYLE_SHEET = Path(__file__).with_name("page.css")

# A white number is easier to read on a cell of a higher percentage, a dark one on others.
_DARK_PERCENT = 55
# More do not fit beside each other on a phone.
_MOST_COLUMNS = 5


def page(title: str, head: Iterable[str], sections: Sequence[Section]) -> str:
    """Return a whole document; it loads nothing from anywhere and runs no script."""
    # Nothing in a page may load or run anything, whatever the texts of the files contain.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    shown = _escape(title)
    # In the page, which has to look right where it is sent alone.
    style_sheet = STYLE_SHEET.read_text(encoding="utf-8")
    parts = [*head]
    # A page of one section is read in one piece.
    if len(sections) > 1:
        parts.append(_contents(sections))
    for number, section in enumerate(sections, start=1):
        name = f"section-{number}"
        parts.append(f'<section aria-labelledby="{name}">')
        parts.append(f'<h2 id="{name}">{_escape(section.title)}</h2>')
        parts += section.parts
        parts.append("</section>")
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{shown}</title>
<style>
{style_sheet}</style>
</head>
<body>
<main>
<h1>{shown}</h1>
{body}
</main>
</body>
</html>
"""


def _contents(sections: Sequence[Section]) -> str:
    """Return the table of contents."""
    lines = []
    for number, section in enumerate(sections, start=1):
        lines.append(f'<li><a href="#section-{number}">{_escape(section.title)}</a></li>')
    entries = "\n".join(lines)
    return f'<nav aria-label="Contents"><ol>\n{entries}\n</ol></nav>'


def verdict(text: str) -> str:
    """Return the sentence that stands above everything."""
    return f'<p class="verdict">{_escape(text)}</p>'


def cards(figures: Sequence[Card]) -> str:
    """Return a few figures in large type."""
    shown = []
    for figure in figures:
        value = f'<dd class="value">{_escape(figure.value)}</dd>'
        note = f"<dd><small>{_escape(figure.note)}</small></dd>"
        shown.append(f"<div><dt>{_escape(figure.name)}</dt>{value}{note}</div>")
    return f'<dl class="cards">{"".join(shown)}</dl>'


def heading(text: str, level: int = 3) -> str:
    """Return a heading inside a section."""
    return f"<h{level}>{_escape(text)}</h{level}>"


def folded(title: str, *parts: str) -> str:
    """Return parts that a reader unfolds under their heading."""
    body = "\n".join(parts)
    return f"<details><summary>{heading(title)}</summary>\n{body}\n</details>"


def beside(*parts: str) -> str:
    """Return parts that stand beside each other where the page is wide enough."""
    body = "\n".join(parts)
    return f'<div class="beside">\n{body}\n</div>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""
    if kind:
        return f'<p class="{kind}">{_escape(text)}</p>'
    return f"<p>{_escape(text)}</p>"


def table(content: TextTable) -> str:
    """Return a table."""
    titles, numeric = content.titles, content.numeric
    head = []
    for title, kind in zip(titles, _kinds(numeric), strict=True):
        head.append(f'<th class="{kind}" scope="col">{_lines(title)}</th>')
    rows = []
    for row in content.rows:
        rows.append(_row(row, titles, _kinds(numeric)))
    body = "\n".join(rows)
    stacked = ""
    if len(titles) > _MOST_COLUMNS:
        stacked = ' class="stacked"'
    # Without a tab stop a table that is wider than the page could not be scrolled by keyboard.
    return f"""<div class="wide" tabindex="0"><table{stacked}>
<thead><tr>{"".join(head)}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def facts(pairs: Iterable[Fact]) -> str:
    """Return a table of names and values."""
    rows = []
    for name, value in pairs:
        head = f'<th scope="row">{_lines(name)}</th>'
        rows.append(f'<tr>{head}<td class="text">{_lines(value)}</td></tr>')
    body = "\n".join(rows)
    return f'<div class="wide"><table><tbody>\n{body}\n</tbody></table></div>'


def matrix(content: TextTable, caption: str) -> str:
    """Return a table of percentages whose cells are the darker the higher theirs is."""
    head = "".join(f'<th scope="col">{_escape(title)}</th>' for title in content.titles)
    rows = []
    for name, *values in content.rows:
        cells = [f'<th scope="row">{_escape(name)}</th>']
        for value in values:
            percent = float(value)
            kind = ' class="dark"' if percent > _DARK_PERCENT else ""
            cells.append(f'<td{kind} style="--part:{percent:.0f}%">{_escape(value)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f"""<figure class="matrix"><figcaption>{_escape(caption)}</figcaption>
<div class="wide" tabindex="0" role="region" aria-label="{_escape(caption)}"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div></figure>"""


def picture(draw: Callable[[], bytes], caption: str) -> str:
    """Return the SVG that `draw` makes, inside the page."""
    shown = _escape(caption)
    image = f'<img src="{_source(draw(), "svg+xml")}" alt="{shown}">'
    return f'<figure class="plot">{image}<figcaption>{shown}</figcaption></figure>'


def tiles(pictures: Sequence[Tile]) -> str:
    """Return a grid of small pictures."""
    shown = []
    for tile in pictures:
        images = []
        for number, png in enumerate(tile.pngs):
            # The first one is described; those beside it are the same face.
            text = tile.description if number == 0 else ""
            images.append(f'<img src="{_source(png, "png")}" alt="{_escape(text)}">')
        caption = _lines("\n".join(tile.lines))
        row = f'<div class="row">{"".join(images)}</div>'
        shown.append(f"<li><figure>{row}<figcaption>{caption}</figcaption></figure></li>")
    kind = "tiles"
    if any(len(tile.pngs) > 1 for tile in pictures):
        kind += " pairs"
    entries = "\n".join(shown)
    return f'<ul class="{kind}">\n{entries}\n</ul>'


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _kinds(numeric: Sequence[bool]) -> list[str]:
    return ["number" if is_numeric else "text" for is_numeric in numeric]


def _row(cells: Sequence[str], titles: Sequence[str], kinds: Sequence[str]) -> str:
    columns = []
    for cell, title, kind in zip(cells, titles, kinds, strict=True):
        # Where a phone shows each row as a list, every value has its column's title.
        shown = _escape(title.replace("\n", ", "))
        columns.append(f'<td class="{kind}" data-title="{shown}">{_lines(cell)}</td>')
    return f"<tr>{''.join(columns)}</tr>"


def _escape(text: str) -> str:
    """Return text that a page shows unchanged, without marks that turn its direction."""
    return escape(printable_lines(text))


def _lines(text: str) -> str:
    """Return escaped text whose lines after the first are small."""
    shown, *others = _escape(text).split("\n")
    for line in others:
        shown += f"<br><small>{line}</small>"
    return shown
