"""`fertool hessian-sensitivity`: how much each channel's precision matters."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.options import DataOption, Device, Json, ModelFile, Output, ReadOptions, Recipe, Seed
from fertool.errors import FertoolError


@command
def hessian_sensitivity(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    samples: Annotated[int, typer.Option(help="Training images, balanced over the classes.", min=2)] = 64,
    method: Annotated[
        Literal["exact", "probe"],
        typer.Option(help="exact: one backward pass per class; probe: one per random combination."),
    ] = "exact",
    probes: Annotated[int, typer.Option(help="Random combinations of --method probe.", min=2)] = 10,
    read: ReadOptions = ReadOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Estimate the Hessian trace of each output channel of every convolution and linear layer; write JSON.

    The Hessian is that of the KL divergence from the model's own answers: needs no labels and is never negative.

    Example: fertool hessian-sensitivity pruned.pt -o sensitivity.json --data fer2013.csv
    """
    from fertool import models
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.cli.output import default_output
    from fertool.data.pixels import to_input
    from fertool.device import resolve_device
    from fertool.hessian import Sensitivity, estimate
    from fertool.report import tables
    from fertool.report.console import progress, result

    output = output or default_output(model, "sensitivity", ".json")
    require_writable(output, model, *read.inputs(data))
    spec, module = models.load_model(model)
    if spec.quant is not None:
        raise FertoolError(
            f"{model}: a quantised model, whose rounding has no derivative", "give the model that it was made from"
        )
    spec.require_static("measured channel by channel")
    shape = spec.input
    source = open_source(data, read, size=shape.size, channels=shape.channels, classes=spec.classes)
    images = source.split("train").balanced_subset(samples, seed).images
    module = module.to(resolve_device(device))
    with progress("traces") as on_progress:
        layers = estimate(
            module, to_input(images, shape), method=method, probes=probes, seed=seed, on_progress=on_progress
        )
    sensitivity = Sensitivity(
        model_digest=spec.digest,
        method=method,
        samples=len(images),
        probes=probes if method == "probe" else 0,
        seed=seed,
        layers=layers,
    )
    write_atomic(output, sensitivity.to_json().encode())
    if json:
        typer.echo(sensitivity.to_json())
    else:
        result(tables.sensitivity_table(sensitivity))
        typer.echo(output)
