"""`fertool show`: what a file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from msgspec import UNSET

from fertool.cli.options import Json


def show(
    file: Annotated[
        Path, typer.Argument(help="A .pt or .onnx file, or one of logits.", metavar="FILE")
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="List the operators of the network, in running order.")
    ] = False,
    json: Json = False,
) -> None:
    """Print what is in a model file, and how a program without fertool uses it, with the program.

    Also for a file of logits. Reads the header only, in milliseconds.

    Example: fertool show student.pt --json | jq .metrics
    """
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result, text_lines
    from fertool.results import ShownModel
    from fertool.workflows.show import describe_file

    summary = describe_file(file, layers=layers)
    if json:
        print_json(summary)
        return
    result(tables.show_table(summary))
    if isinstance(summary, ShownModel):
        result(tables.contract_table(summary.contract))
        text_lines((summary.snippet or "").splitlines())
        if summary.layers is not UNSET:
            result(tables.nodes_table(summary.layers))
