"""`fertool hessian-sensitivity`: how much each channel's precision matters."""

from __future__ import annotations

from fertool.cli.options import DataOption, Json, ModelFile, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.pictures import TracePictures
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig
from fertool.config.sensitivity import TraceConfig


def hessian_sensitivity(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    config: TraceConfig = TraceConfig(),
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    pictures: TracePictures = TracePictures(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Estimate Hessian traces of each output channel of all layers with weights; write JSON.

    By the channel's weights, and by its activation: the layer's output, ahead of batch norm.
    The Hessian is that of the KL divergence from the model's own predictions, which needs no labels
    and is never negative; with the two hutchinson methods it is that of the cross-entropy.
    A killed run goes on from OUT.resume and ends with the same file.

    Example: fertool hessian-sensitivity pruned.pt -o sens.json --data fer2013.csv --plot traces.png
    """
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import path_result, result
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import default_output
    from fertool.workflows.sensitivity import sensitivity

    output = output or default_output(model, "sensitivity", ".json")
    faces = open_data(data, read, reporter=CONSOLE)
    found = sensitivity(
        load(model), faces, config, output=output, pictures=pictures, run=run, reporter=CONSOLE
    )
    if json:
        print_json(found)
    else:
        result(tables.sensitivity_table(found))
        path_result(output)
