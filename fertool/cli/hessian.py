"""`fertool hessian-sensitivity`: how much each channel's precision matters."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import (
    OUTPUT,
    DataOption,
    Device,
    Json,
    ModelFile,
    Output,
    ReadOptions,
    Recipe,
    Seed,
)
from fertool.cli.signals import says_how_to_go_on
from fertool.errors import FertoolError

if TYPE_CHECKING:
    from fertool.hessian import Sensitivity, TraceConfig


@command
def hessian_sensitivity(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    samples: Annotated[
        int, typer.Option(help="Training images, balanced over the classes.", min=2)
    ] = 64,
    method: Annotated[
        Literal["exact", "probe", "hutchinson", "hutchinson-masked"],
        typer.Option(
            help="exact: one backward pass per class; probe: one per random combination. hutchinson: of the "
            "cross-entropy, by products with random vectors, noisy and maybe negative; hutchinson-masked: with one "
            "product for every channel and probe, thousands of times slower."
        ),
    ] = "exact",
    probes: Annotated[
        int, typer.Option(help="Random vectors of the methods other than exact.", min=2)
    ] = 10,
    target_error: Annotated[
        float | None,
        typer.Option(
            help="Go on with more images (exact) or probes until the standard error of the median channel, as a share "
            "of its trace, is as small as this, for example 0.05.",
        ),
    ] = None,
    max_rounds: Annotated[
        int,
        typer.Option(help="How many times --samples or --probes --target-error may take.", min=1),
    ] = 16,
    read: ReadOptions = ReadOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Continue from OUT.resume if it is there.")
    ] = (True),
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write the traces by layer and channel as a PNG.", rich_help_panel=OUTPUT
        ),
    ] = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Estimate Hessian traces of each output channel of every convolution and linear layer; write JSON.

    By the channel's weights, and by its activation: the layer's output, ahead of batch norm.
    The Hessian is that of the KL divergence from the model's own answers, which needs no labels
    and is never negative; with the two hutchinson methods it is that of the cross-entropy.
    A killed run goes on from OUT.resume and ends with the same file.

    Example: fertool hessian-sensitivity pruned.pt -o sens.json --data fer2013.csv --plot traces.png
    """
    from fertool.artifact.atomic import require_writable, write_atomic
    from fertool.artifact.resume_file import discard_resume, resume_path
    from fertool.cli.output import default_output, print_json, require_picture
    from fertool.report import tables
    from fertool.report.console import path_result, progress, result
    from fertool.report.plots.trace_strips import plot_sensitivity

    output = output or default_output(model, "sensitivity", ".json")
    require_writable(output, model, *read.inputs(data))
    require_picture("--plot", plot, output, model, *read.inputs(data))
    require_inputs(model, data=data, read=read)
    from fertool import models
    from fertool.data.pixels import to_input
    from fertool.device import resolve_device
    from fertool.hessian import TraceConfig, estimate_traces

    config = TraceConfig(method, samples, probes, target_error, max_rounds, seed)
    state = resume_path(output)
    require_writable(state, model, *read.inputs(data))
    if not resume:
        discard_resume(state)
    spec, module = models.load_model(model)
    if spec.quant is not None:
        raise FertoolError(
            f"{model}: a quantised model, whose rounding has no derivative",
            "give the model that it was made from",
        )
    spec.require_static("measured channel by channel")
    shape = spec.input
    source = open_source(data, read, size=shape.size, channels=shape.channels, classes=spec.classes)
    faces = source.split("train").balanced_subset(config.max_images, seed)
    module = module.to(resolve_device(device))
    with (
        says_how_to_go_on(lambda: [state] if state.exists() else []),
        progress("traces") as on_progress,
    ):
        found = estimate_traces(
            module,
            to_input(faces.images, shape),
            faces.labels,
            config,
            resume=state,
            on_progress=on_progress,
        )
    found = replace(found, model_digest=spec.digest)
    write_atomic(output, found.to_json().encode())
    discard_resume(state)
    if plot:
        write_atomic(plot, plot_sensitivity(asdict(found)))
    _say_error(found, config)
    if json:
        print_json(asdict(found))
    else:
        result(tables.sensitivity_table(found))
        path_result(output)


def _say_error(found: Sensitivity, config: TraceConfig) -> None:
    """Say how sure the traces are and, if they ought to be surer, what to do."""
    from fertool.report.console import note, warn
    from fertool.report.units import percent_text

    error = found.relative_error()
    effort = f"{found.samples:,} images" + f" and {found.probes:,} probes" * bool(found.probes)
    said = f"standard error of the median channel {percent_text(error)} of its trace, with {effort}"
    if config.target_error is None or error <= config.target_error:
        note(said)
    else:
        warn(
            f"{said}: not {percent_text(config.target_error)}; raise --max-rounds, or take a larger data set"
        )
