"""`fertool show`: what a file says about itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import UNSET

from fertool.cli.options import Json
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.results import LogitsSummary, ShownModel


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

    summary = _summarize(file, layers)
    if json:
        print_json(summary)
        return
    result(tables.show_table(summary))
    if isinstance(summary, ShownModel):
        result(tables.contract_table(summary.contract))
        text_lines((summary.snippet or "").splitlines())
        if summary.layers is not UNSET:
            result(tables.nodes_table(summary.layers))


def _summarize(file: Path, layers: bool) -> ShownModel | LogitsSummary:
    """Return what the header of a file says, and the operators of its network if asked for."""
    from fertool.artifact.header import read_spec
    from fertool.artifact.logits_header import is_logits, read_logits_spec
    from fertool.formats.snippets import contract_of, snippet_of
    from fertool.results import LogitsSummary, ShownModel

    if is_logits(file):
        if layers:
            raise UsageError(f"--layers: {file} holds logits, not a network", "give a model file")
        return LogitsSummary.of(file, read_logits_spec(file))
    spec = read_spec(file)
    contract = contract_of(file, spec)
    snippet = snippet_of(file, contract)
    size_bytes = file.stat().st_size
    summary = ShownModel.of(file, size_bytes, spec, contract=contract, snippet=snippet)
    if not layers:
        return summary
    return replace(summary, layers=tuple(spec.graph.to_builtins()["nodes"]))
