"""Pieces of a self-contained page in HTML.

Every text that comes from outside is escaped here, and only here.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape

from fertool.report.printable import printable_lines
from fertool.report.text_table import Fact, TextTable

_STYLE = """
:root { color: #1f2328; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } \
h2 { font-size: 1.3rem; margin-top: 2.5rem; border-bottom: 1px solid #d0d7de; }
h3 { font-size: 1.05rem; margin-top: 1.8rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e5e8eb; \
text-align: left; vertical-align: top; }
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
    # Nothing in a page may load or run anything, whatever the texts of the files contain.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    shown = _escape(title)
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{shown}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{shown}</h1>
{body}
</body>
</html>
"""


def heading(text: str, level: int = 2) -> str:
    """Return a heading of level 2 or 3."""
    return f"<h{level}>{_escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""
    if kind:
        return f'<p class="{kind}">{_escape(text)}</p>'
    return f"<p>{_escape(text)}</p>"


def table(content: TextTable) -> str:
    """Return a table."""
    head = _row("th", content.numeric, content.titles)
    rows = []
    for row in content.rows:
        rows.append(_row("td", content.numeric, row))
    body = "\n".join(rows)
    return f"""<div class="wide"><table>
<thead>{head}</thead>
<tbody>
{body}
</tbody></table></div>"""


def facts(pairs: Iterable[Fact]) -> str:
    """Return a table of names and values."""
    rows = []
    for name, value in pairs:
        rows.append(f'<tr><th>{_lines(name)}</th><td class="text">{_lines(value)}</td></tr>')
    body = "\n".join(rows)
    return f'<div class="wide"><table><tbody>\n{body}\n</tbody></table></div>'


def picture(draw: Callable[[], bytes], caption: str, width: int) -> str:
    """Return the PNG that `draw` makes, inside the page; `width` in CSS pixels."""
    source = f"data:image/png;base64,{base64.b64encode(draw()).decode()}"
    shown = _escape(caption)
    image = f'<img src="{source}" alt="{shown}" width="{width}">'
    return f"<figure>{image}<figcaption>{shown}</figcaption></figure>"


def _row(tag: str, numeric: Sequence[bool], cells: Sequence[str]) -> str:
    columns = []
    for is_numeric, cell in zip(numeric, cells, strict=True):
        kind = "number" if is_numeric else "text"
        columns.append(f'<{tag} class="{kind}">{_lines(cell)}</{tag}>')
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
