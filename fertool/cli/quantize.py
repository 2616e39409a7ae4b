"""`fertool quantize`: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fertool.cli.groups import training_command
from fertool.cli.options import (
    OUTPUT,
    Bench,
    Curves,
    DataOption,
    DryRun,
    Json,
    ModelFile,
    Output,
    Recipe,
)
from fertool.cli.reporting import CONSOLE
from fertool.config.quantization import QuantizeConfig
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig

if TYPE_CHECKING:
    from fertool.workflows.quantize import QuantizedModel

_NOT_FASTER = (
    "INT8 is not measurably faster on this machine: it may lack VNNI, or the network be too small "
    "to gain"
)


@training_command
def quantize(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    config: QuantizeConfig = QuantizeConfig(),
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    bench: Bench = True,
    plot: Curves = None,
    plot_bits: Annotated[
        Path | None,
        typer.Option(
            help="Write a PNG of the bits of every layer's channels.", rich_help_panel=OUTPUT
        ),
    ] = None,
    dry_run: DryRun = False,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Quantize a float model to integers of 2 to 8 bits; the file stores the integers, packed.

    Calibrates on training images, and reports the validation accuracy before and after. Arithmetic
    is INT8 whatever the bits of the weights: fewer make the file smaller, not the network faster.

    Example: fertool quantize pruned.pt -o int8.pt --data fer2013.csv
    """
    from fertool.cli.output import (
        announce,
        default_output,
        print_change,
        print_preview,
        require_pictures,
        write_curves,
    )
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import require_outputs
    from fertool.workflows.quantize import preview_quantization, quantize, require_processes

    output = output or default_output(model, _stage(config))
    # In Python traces are estimated where none are given; a Makefile has a step for them.
    config.require_sensitivity()
    require_processes(config)
    faces = open_data(data, read, reporter=CONSOLE)
    if dry_run:
        planned = preview_quantization(load(model), faces, config, run=run, reporter=CONSOLE)
        print_preview(planned.preview, json)
        return
    inputs = [model, *faces.files]
    if config.sensitivity:
        inputs.append(config.sensitivity)
    require_outputs(output, inputs, trains=bool(config.training.epochs))
    require_pictures({"--plot": plot, "--plot-bits": plot_bits}, output, inputs)
    quantized = quantize(
        load(model), faces, config, output=output, bench=bench, run=run, reporter=CONSOLE
    )
    if quantized.path is None:
        return  # Another process has written the model.
    write_curves(plot, output.stem, quantized.history)
    _write_bits(plot_bits, quantized)
    print_change(quantized, _NOT_FASTER)
    announce(quantized.summary, json)


def _stage(config: QuantizeConfig) -> str:
    """Return what the name of a file says of its weights: `int8`, or `mixed` bits."""
    if config.is_mixed:
        return "mixed"
    return f"int{config.bits or 8}"


def _write_bits(path: Path | None, quantized: QuantizedModel) -> None:
    """Write the picture of the bits of each layer."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.plots.layer_bars import FLOAT_BITS, plot_bits

    if path is None:
        return
    layers = quantized.layer_bits.items()
    write_atomic(path, plot_bits([(name, bits or (FLOAT_BITS,)) for name, bits in layers]))
