"""Print docs/results.md and draw docs/result-table.svg; see `make results`.

The page is docs/templates/results.md, filled from the JSON files in docs/results/.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import chains
import compression
import jinja2
import speed
import tables

PAGE = "results.md"
TEMPLATES = Path(__file__).parent / "templates"
PICTURE = Path(__file__).parent / "result-table.svg"


def main() -> None:
    """Write the page to stdout and, without --check, the picture of the table beside it."""
    print(render(PAGE))
    if "--check" not in sys.argv:
        draw_table()


def render(template: str) -> str:
    """Return a page, filled in. A name that the template has and no module is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined
    )
    environment.filters.update(tables.FILTERS)
    for module in (tables, chains, compression, speed):
        environment.globals.update(vars(module))
    return environment.get_template(template).render()


def draw_table() -> None:
    """Draw the table that `fertool bench` prints for the chain."""
    from rich.console import Console

    from fertool.report.tables import bench_table
    from fertool.results import BenchResult
    from fertool.strict_json import as_type

    if (tables.FOLDER / "two_cores_bench.json").exists():
        console = Console(record=True, width=100, file=io.StringIO())
        measured = as_type(tables.load("two_cores_bench.json"), BenchResult)
        console.print(bench_table(measured))
        picture = console.export_svg(
            title="fertool bench teacher.onnx student.onnx pruned.onnx int8.onnx"
        )
        # The picture must not fetch its font.
        PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
