"""`fertool quantize`: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

from fertool.cli.options import Bench, DataOption, DryRun, Json, ModelFile, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.pictures import QuantizePictures
from fertool.config.quantization import QuantizeConfig
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig

_NOT_FASTER = (
    "not measurably faster than its input on this machine, which may lack VNNI, or the network be "
    "too small to gain; --compute auto takes floats where they are faster"
)


def quantize(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    config: QuantizeConfig = QuantizeConfig(),
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    bench: Bench = True,
    pictures: QuantizePictures = QuantizePictures(),
    dry_run: DryRun = False,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Quantize a float model to integers of 2 to 8 bits; the file stores the integers, packed.

    Calibrates on training images, and reports the validation accuracy before and after. Arithmetic
    is INT8 whatever the bits of the weights: fewer make the file smaller, not the network faster.

    Example: fertool quantize pruned.pt -o int8.pt --data fer2013.csv

    Example: fertool quantize pruned.pt --average-bits 2.5 --allocation fisher --data fer2013.csv
    """
    from fertool.cli.output import print_changed, print_preview
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import default_output, require_outputs
    from fertool.workflows.quantize import preview_quantization, quantize, require_processes

    output = output or default_output(model, config.stage)
    # In Python traces are estimated where none are given; a Makefile has a step for them.
    config.require_sensitivity()
    require_processes(config)
    faces = open_data(data, read, reporter=CONSOLE)
    if dry_run:
        planned = preview_quantization(load(model), faces, config, run=run, reporter=CONSOLE)
        print_preview(planned.preview, json)
        return
    # Before PyTorch is imported, which takes long too.
    require_outputs(output, [model, *faces.files], trains=bool(config.training.epochs))
    quantized = quantize(
        load(model),
        faces,
        config,
        output=output,
        bench=bench,
        pictures=pictures,
        run=run,
        reporter=CONSOLE,
    )
    print_changed(quantized, _NOT_FASTER if config.compute == "int8" else "", json)
