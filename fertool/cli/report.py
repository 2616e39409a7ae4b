"""`fertool report`: one page that shows models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.groups import command


@command
def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Models (.pt, .onnx) and JSON: eval, bench, training, grids."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The file to write: HTML or, if it ends in .md, Markdown."
        ),
    ] = Path("report.html"),
) -> None:
    """Write a page with the card of every model, their figures and plots, as one HTML file.

    As Markdown, without the plots, it is a model card for a repository.

    Example: fertool report student.pt int8.pt bench.json eval.json -o report.html

    Example: fertool report student.pt eval.json -o README.md
    """
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.report.console import path_result
    from fertool.report.page import render_page
    from fertool.report.result_files import read_result_files

    require_writable(output, *files)
    found = read_result_files(files)
    write_atomic(output, render_page(found, as_markdown=output.suffix.lower() == ".md").encode())
    path_result(output)
