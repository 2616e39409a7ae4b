"""Pieces of a self-contained page. Every text that comes from outside is escaped here, and only here."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape

from fertool.report.grids import Fact, Grid
from fertool.report.plain import plain_lines

STYLE = """
:root { color: #1f2328; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e5e8eb; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #57606a; vertical-align: bottom; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: break-word; min-width: 5rem; }
small, figcaption, .quiet { color: #57606a; }
.notice { border-left: 4px solid #d55e00; background: #fff6f0; padding: .6rem 1rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
@media print { body { max-width: none; } h2, h3, figure, tr { break-inside: avoid; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole document; it loads nothing from anywhere and runs no script."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{_escape(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """Return a heading of level 2 or 3."""
    return f"<h{level}>{_escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""
    return f'<p class="{kind}">{_escape(text)}</p>' if kind else f"<p>{_escape(text)}</p>"


def table(grid: Grid) -> str:
    """Return a table."""
    kinds = ["number" if header.startswith(">") else "text" for header in grid.headers]
    head = _row("th", kinds, [header.removeprefix(">") for header in grid.headers])
    body = "\n".join(_row("td", kinds, row) for row in grid.rows)
    return (
        f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'
    )


def facts(pairs: Iterable[Fact]) -> str:
    """Return a table of names and values."""
    rows = "\n".join(
        f'<tr><th>{_lines(name)}</th><td class="text">{_lines(value)}</td></tr>'
        for name, value in pairs
    )
    return f'<div class="wide"><table><tbody>\n{rows}\n</tbody></table></div>'


def picture(draw: Callable[[], bytes], caption: str, width: int) -> str:
    """Return the PNG that `draw` makes, inside the page; `width` in CSS pixels."""
    source = f"data:image/png;base64,{base64.b64encode(draw()).decode()}"
    shown = _escape(caption)
    return f'<figure><img src="{source}" alt="{shown}" width="{width}"><figcaption>{shown}</figcaption></figure>'


def _row(tag: str, kinds: Sequence[str], cells: Sequence[str]) -> str:
    columns = zip(kinds, cells, strict=True)
    return (
        "<tr>"
        + "".join(f'<{tag} class="{kind}">{_lines(cell)}</{tag}>' for kind, cell in columns)
        + "</tr>"
    )


def _escape(text: str) -> str:
    """Return text that a page shows as it is, without marks that turn the direction of what follows."""
    return escape(plain_lines(text))


def _lines(text: str) -> str:
    first, *rest = _escape(text).split("\n")
    return first + "".join(f"<br><small>{line}</small>" for line in rest)
