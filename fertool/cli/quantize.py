"""`fertool quantize`: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.activation_replacement import replace_and_train
from fertool.cli.bits import QUANTISATION, BitsOptions
from fertool.cli.change import Model, measure_changes, measured_metrics, show_changes, write_bits
from fertool.cli.data import open_source
from fertool.cli.groups import training_command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import (
    OUTPUT,
    Bench,
    DataOption,
    Device,
    DryRun,
    FineTuneOptions,
    Json,
    ModelFile,
    Output,
    ReadOptions,
    Recipe,
    Seed,
)
from fertool.cli.portability import measure_portability
from fertool.cli.processes import require_one
from fertool.cli.provenance import make_step
from fertool.cli.recovery import recovery
from fertool.cli.splits import validation_of
from fertool.cli.training import History, TrainingRun, options_of, require_outputs
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.models.quantized import QuantizedNet
    from fertool.quant import QuantizeConfig
    from fertool.spec import Spec

_NOT_FASTER = "INT8 is not measurably faster on this machine: it may lack VNNI, or the network be too small to gain"


@dataclass(frozen=True)
class QuantizeOptions:
    """How integers are found for given bits."""

    method: Annotated[
        Literal["ptq", "qat"],
        typer.Option(
            help="ptq: after training, with calibration images; qat: then --epochs of training with rounding in it, "
            "steps learned.",
            rich_help_panel=QUANTISATION,
        ),
    ] = "ptq"
    rounding: Annotated[
        Literal["compensated", "nearest"],
        typer.Option(
            help="compensated: the error of each weight is made up for by those rounded after it, and by the bias; "
            "nearest: each by itself.",
            rich_help_panel=QUANTISATION,
        ),
    ] = "compensated"
    observer: Annotated[
        Literal["min-max", "percentile", "mse"],
        typer.Option(help="How activation ranges are chosen.", rich_help_panel=QUANTISATION),
    ] = "mse"
    activation_bits: Annotated[
        int,
        typer.Option(
            help="Bits of all activations, for processors that gain from fewer; ONNX Runtime does not.",
            min=4,
            max=8,
            rich_help_panel=QUANTISATION,
        ),
    ] = 8
    average_activation_bits: Annotated[
        float | None,
        typer.Option(
            help="Mean bits of an activation, shared out over the layers by what rounding each does to the answers.",
            min=4,
            max=8,
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A layer that stays float, or all within a block; * and ? stand for any characters; repeatable.",
            rich_help_panel=QUANTISATION,
        ),
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            help="Calibration images, balanced over the classes.",
            min=1,
            rich_help_panel=QUANTISATION,
        ),
    ] = 512
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range/--portable",
            help="Use weights up to 127, or up to 63: the same answers on processors without VNNI, too.",
            rich_help_panel=QUANTISATION,
        ),
    ] = False
    distill: Annotated[
        bool,
        typer.Option(
            "--distill/--no-distill",
            help="qat: train on the float model's answers too.",
            rich_help_panel=QUANTISATION,
        ),
    ] = True
    int8_friendly: Annotated[
        bool,
        typer.Option(
            "--int8-friendly",
            help="qat: put ReLU in place of HardSwish and SiLU, which cost integers most, and teach the network to do "
            "without, first as floats.",
            rich_help_panel=QUANTISATION,
        ),
    ] = False
    float_epochs: Annotated[
        int | None,
        typer.Option(
            help="int8-friendly: epochs as floats before those with rounding; as many as --epochs if left out.",
            min=0,
            rich_help_panel=QUANTISATION,
        ),
    ] = None


PlotBits = Annotated[
    Path | None,
    typer.Option(help="Write a PNG of the bits of every layer's channels.", rich_help_panel=OUTPUT),
]


@training_command
def quantize(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    bits: BitsOptions = BitsOptions(),
    options: QuantizeOptions = QuantizeOptions(),
    read: ReadOptions = ReadOptions(),
    training: FineTuneOptions = FineTuneOptions(),
    bench: Bench = True,
    plot_bits: PlotBits = None,
    dry_run: DryRun = False,
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Quantise a float model to integers of 2 to 8 bits; the file stores the integers, packed.

    Calibrates on training images, and reports the validation accuracy before and after. Arithmetic is INT8 whatever
    the bits of the weights: fewer make the file smaller, not the network faster.

    Example: fertool quantize pruned.pt -o int8.pt --data fer2013.csv
    """
    from fertool.cli.output import default_output, require_picture
    from fertool.report.console import note, progress

    _require_sense(options, training, bits)
    output = output or default_output(model, "mixed" if bits.mixed else f"int{bits.bits or 8}")
    if not dry_run:
        inputs = [model, *read.inputs(data), *([bits.sensitivity] if bits.sensitivity else [])]
        require_outputs(output, training, *inputs)
        require_picture(
            "--plot-bits", plot_bits, output, *inputs, *([training.plot] if training.plot else [])
        )
    require_inputs(model, data=data, read=read)
    from fertool import models
    from fertool.models import require_static
    from fertool.models.weight_packing import average_bits
    from fertool.quant import describe_integer_fraction, quantize_model

    spec, module = models.load_model(model)
    shape = spec.input
    source = open_source(data, read, size=shape.size, channels=shape.channels, classes=spec.classes)
    run = TrainingRun(source.split("train"), validation_of(source), training, output, seed, device)
    config = _config(options, seed)
    groups = (bits, options, read, training) if training.epochs else (bits, options, read)
    step = make_step(
        "quantize",
        options_of(*groups),
        seed,
        model=spec.digest,
        data=run.train,
        sensitivity=bits.sensitivity,
    )
    given: Model = (spec, module)
    history: History = []
    if options.int8_friendly:
        epochs = training.epochs if options.float_epochs is None else options.float_epochs
        (spec, module), run, history = replace_and_train(
            given, run, 0 if dry_run else epochs, distill=options.distill
        )
    widths = bits.chosen(model, spec, step, module, config, run.val)
    with progress("calibration") as on_progress:
        quant, integer = quantize_model(spec, module, run.train, config, on_progress, bits=widths)
    note(describe_integer_fraction(require_static(module), quant))
    quantized = replace(spec, quant=replace(quant, method=options.method))
    if training.epochs and not dry_run:
        history = _train(quantized, integer, given, run, distill=options.distill)
    quantized = replace(quantized, metrics=measured_metrics(integer, run.val, shape))
    changes = measure_changes(given, (quantized, integer), run.val, bench=bench and not dry_run)
    changes["average_bits"] = average_bits(quant, integer)
    changes |= measure_portability(integer, shape, run.val, changes["accuracy"])
    if dry_run:
        _show_plan(model, quantized.with_step(step), changes, json)
        return

    def tell(written: Spec) -> dict[str, Any]:
        if plot_bits:
            write_bits(plot_bits, written, given[1])
        show_changes(model, output, given[0], written, changes, _NOT_FASTER)
        return {"change": changes}

    run.finish(quantized, integer, step, history, json, tell)


def _require_sense(options: QuantizeOptions, training: FineTuneOptions, bits: BitsOptions) -> None:
    """Raise UsageError where options do not go together; of several processes only training has use."""
    if options.int8_friendly and options.method == "ptq":
        raise UsageError(
            "--int8-friendly: a network with other activations has to be trained",
            "add --method qat --epochs 5",
        )
    if options.int8_friendly and bits.sensitivity:
        raise UsageError(
            "--int8-friendly: --sensitivity is about the network as it was",
            "give --bits, or --allocation uniform",
        )
    if options.float_epochs is not None and not options.int8_friendly:
        raise UsageError(
            f"--float-epochs {options.float_epochs}: only for --int8-friendly", "leave it out"
        )
    if options.method == "qat" and not training.epochs:
        raise UsageError("--method qat: no epochs to train", "for example --epochs 5")
    if options.method == "ptq" and training.epochs:
        raise UsageError(
            f"--epochs {training.epochs}: --method ptq does not train", "add --method qat"
        )
    if options.method == "ptq":
        require_one("quantize --method ptq")


def _config(options: QuantizeOptions, seed: int) -> QuantizeConfig:
    from fertool.quant import FULL_LIMIT, PORTABLE_LIMIT, QuantizeConfig

    limit = FULL_LIMIT if options.full_range else PORTABLE_LIMIT
    return QuantizeConfig(
        options.observer,
        rounding=options.rounding,
        samples=options.samples,
        limit=limit,
        activation_bits=options.activation_bits,
        keep_float=tuple(options.keep_float or ()),
        average_activation_bits=options.average_activation_bits,
        seed=seed,
    )


def _train(
    spec: Spec, integer: QuantizedNet, before: Model, run: TrainingRun, *, distill: bool
) -> History:
    """Train with rounding, and fill the integers in again; returns the history."""
    from fertool.quant import convert, prepare_qat

    assert spec.quant is not None
    trained = prepare_qat(integer, spec.quant)
    _, history = run.fit(spec, trained, recovery(before, run, distill=distill))
    convert(trained.cpu(), integer, spec.quant)
    return history


def _show_plan(model: Path, spec: Spec, changes: dict[str, Any], json: bool) -> None:
    """Print what `--dry-run` found: the bits of every layer, and the size of the file that it does not write."""
    from fertool.cli.output import print_json
    from fertool.models import stored_size_bytes
    from fertool.report import tables
    from fertool.report.console import result

    header, size, before = asdict(spec), stored_size_bytes(spec), model.stat().st_size
    if json:
        print_json(
            {
                "quant": header["quant"],
                "size_bytes_before": before,
                "size_bytes": size,
                "change": changes,
            }
        )
        return
    result(tables.bits_table(header["quant"]))
    first = {"size_bytes": before, "accuracy": changes["accuracy_before"]}
    result(tables.change_table(first, {**changes, "size_bytes": size}))
