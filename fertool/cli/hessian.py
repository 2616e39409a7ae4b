"""`fertool hessian-sensitivity`: how much each channel's precision matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.groups import command
from fertool.cli.options import OUTPUT, DataOption, Json, ModelFile, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig
from fertool.config.sensitivity import TraceConfig


@command
def hessian_sensitivity(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    config: TraceConfig = TraceConfig(),
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write the traces by layer and channel as a PNG.", rich_help_panel=OUTPUT
        ),
    ] = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Estimate Hessian traces of each output channel of all layers with weights; write JSON.

    By the channel's weights, and by its activation: the layer's output, ahead of batch norm.
    The Hessian is that of the KL divergence from the model's own answers, which needs no labels
    and is never negative; with the two hutchinson methods it is that of the cross-entropy.
    A killed run goes on from OUT.resume and ends with the same file.

    Example: fertool hessian-sensitivity pruned.pt -o sens.json --data fer2013.csv --plot traces.png
    """
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.cli.output import default_output, print_json, require_pictures
    from fertool.report import tables
    from fertool.report.console import path_result, result
    from fertool.report.plots.trace_strips import plot_sensitivity
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.sensitivity import sensitivity

    output = output or default_output(model, "sensitivity", ".json")
    faces = open_data(data, read, reporter=CONSOLE)
    # Before the traces, which take minutes.
    require_writable(output, model, *faces.files)
    require_pictures({"--plot": plot}, output, [model, *faces.files])
    found = sensitivity(load(model), faces, config, output=output, run=run, reporter=CONSOLE)
    if plot:
        write_atomic(plot, plot_sensitivity(found))
    if json:
        print_json(found)
    else:
        result(tables.sensitivity_table(found))
        path_result(output)
