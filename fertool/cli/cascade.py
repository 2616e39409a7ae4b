"""`fertool cascade`: two models in one file, the second for what the first is not sure of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.options import DataOption, Json, ModelFile, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.cascade import CascadeConfig


def cascade(
    model: ModelFile,
    second: Annotated[Path, typer.Argument(help="The larger model file, .pt.", metavar="SECOND")],
    data: DataOption,
    output: Output = None,
    config: CascadeConfig = CascadeConfig(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Put two models into one file: SECOND runs where MODEL, the smaller one, is not sure.

    Each may be float or quantized. The threshold is calibrated on the validation images, and the
    result has the accuracy for the same fraction of the images, chosen at random.

    Example: fertool cascade small.int8.pt large.int8.pt -o both.pt --data fer2013.csv --share 0.3
    """
    from fertool.artifact.input_files import require_file
    from fertool.cli.output import announce
    from fertool.workflows.cascade import cascade
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import default_output

    for path in (model, second):
        require_file(path)
    output = output or default_output(model, "cascade")
    faces = open_data(data, reporter=CONSOLE)
    made = cascade(load(model), load(second), faces, config, output=output, reporter=CONSOLE)
    announce(made.summary, json)
