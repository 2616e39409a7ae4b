"""`fertool show`: what a file says about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.groups import command
from fertool.cli.options import Json
from fertool.errors import UsageError


@command
def show(
    file: Annotated[
        Path, typer.Argument(help="A .pt or .onnx file, or one of logits.", metavar="FILE")
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="List the operators of the network, in running order.")
    ] = False,
    json: Json = False,
) -> None:
    """Print what is in a model file: architecture, size, classes, metrics, history; or in a file of logits.

    Reads the header only, in milliseconds.

    Example: fertool show student.pt --json | jq .metrics
    """
    from fertool.artifact.header import read_spec
    from fertool.artifact.logits_header import LogitsSpec, is_logits, read_logits_spec
    from fertool.cli.output import print_json, spec_as_json
    from fertool.report import tables
    from fertool.report.console import result

    spec = read_logits_spec(file) if is_logits(file) else read_spec(file)
    summary = spec_as_json(spec, file)
    graph = None if isinstance(spec, LogitsSpec) else spec.graph
    if layers and graph is None:
        raise UsageError(f"--layers: {file} holds logits, not a network", "give a model file")
    if json:
        print_json(
            {**summary, "layers": graph.to_builtins()["nodes"]} if layers and graph else summary
        )
        return
    result(tables.show_table(summary))
    if layers and graph:
        result(tables.nodes_table(graph.to_builtins()["nodes"]))
