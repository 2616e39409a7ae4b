"""`fertool report`: one page that shows models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.options import OptionalData
from fertool.cli.reporting import CONSOLE
from fertool.config.reading import ReadConfig
from fertool.config.reporting import ReportConfig


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
    data: OptionalData = None,
    config: ReportConfig = ReportConfig(),
    read: ReadConfig = ReadConfig(),
) -> None:
    """Write a page that says what compression did: a verdict, figures, plots and model cards.

    Histories beside the models are found by themselves. With --data the page also shows the images
    that the first and the last model are surest and wrong about. As Markdown, without pictures, it
    is a model card for a repository.

    Example: fertool report student.pt int8.pt bench.json eval.json -o report.html

    Example: fertool report teacher.pt student.pt --data fer2013.csv --grad-cam

    Example: fertool report student.pt eval.json -o README.md
    """
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.report.console import path_result
    from fertool.workflows.data import open_data
    from fertool.workflows.report import make_report

    faces = open_data(data, read, reporter=CONSOLE) if data else None
    inputs = [*files, *faces.files] if faces else files
    require_writable(output, *inputs)
    as_markdown = output.suffix.lower() == ".md"
    page = make_report(files, faces, config, as_markdown=as_markdown, reporter=CONSOLE)
    write_atomic(output, page.encode())
    path_result(output)
