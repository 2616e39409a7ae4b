"""`fertool quantize`: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.change import measure_changes, tell_int8_latency
from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.options import Bench, DataOption, DryRun, Json, ModelFile, Output, ReadOptions, Recipe, Seed
from fertool.cli.portability import measure_portability
from fertool.cli.provenance import make_step
from fertool.cli.splits import validation_of
from fertool.cli.training import options_of

if TYPE_CHECKING:
    from torch import nn

    from fertool.spec import Spec


@command
def quantize(
    model: ModelFile,
    data: DataOption,
    output: Output = None,
    bits: Annotated[int, typer.Option(help="Bits of weights and activations.", min=8, max=8)] = 8,
    method: Annotated[Literal["ptq"], typer.Option(help="ptq: post-training, with calibration images.")] = "ptq",
    observer: Annotated[
        Literal["min-max", "percentile", "mse"], typer.Option(help="How activation ranges are chosen.")
    ] = "mse",
    samples: Annotated[int, typer.Option(help="Calibration images, balanced over the classes.", min=1)] = 512,
    full_range: Annotated[
        bool,
        typer.Option(
            "--full-range/--portable",
            help="Use weights up to 127, or up to 64: the same answers on processors without VNNI, too.",
        ),
    ] = False,
    bench: Bench = True,
    dry_run: DryRun = False,
    read: ReadOptions = ReadOptions(),
    seed: Seed = 0,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Quantise a float model to integers after training; the file stores the integers.

    Calibrates on training images, and reports the validation accuracy before and after.

    Example: fertool quantize pruned.pt -o int8.pt --data fer2013.csv
    """
    from fertool import models
    from fertool.artifact.atomic import require_writable
    from fertool.cli.output import announce, default_output
    from fertool.metrics import compare_paired, evaluate_logits, to_metrics
    from fertool.quant import QuantizeConfig, quantize_model
    from fertool.report.console import note, progress
    from fertool.train import predict_logits

    output = output or default_output(model, "int8")
    if not dry_run:
        require_writable(output, model, *read.inputs(data))
    spec, module = models.load_model(model)
    shape = spec.input
    source = open_source(data, read, size=shape.size, channels=shape.channels, classes=spec.classes)
    train, val = source.split("train"), validation_of(source)
    config = QuantizeConfig(activations=observer, samples=samples, seed=seed, limit=127 if full_range else 64)
    with progress("calibration") as on_progress:
        quant, integer = quantize_model(spec, module, train, config, on_progress)
    before, after = (predict_logits(each, val, shape) for each in (module, integer))
    evaluation = evaluate_logits(after, val.labels, val.classes)
    change = compare_paired(before.argmax(1) == val.labels, after.argmax(1) == val.labels)
    options = {"bits": bits, "method": method, "observer": observer, "samples": samples, "full_range": full_range}
    step = make_step("quantize", options_of(options, read), seed, model=spec.digest, data=train)
    quantized = spec.with_step(step, quant=quant, metrics=to_metrics(evaluation, val.split))
    low, high = change.difference_ci95
    note(
        f"{val.split} accuracy {evaluation.accuracy - change.difference:.3f} -> {evaluation.accuracy:.3f}, "
        f"change {100 * change.difference:+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"
    )
    portability = measure_portability(integer, shape, val, evaluation.accuracy)
    if dry_run:
        _show_plan(model, quantized, integer, {**asdict(change), **portability}, json)
        return
    written = models.save_model(output, quantized, integer)
    latency = measure_changes((spec, module), (written, integer), None, bench=bench)
    tell_int8_latency(latency)
    announce(written, output, json, change={**asdict(change), **portability, **latency})


def _show_plan(model: Path, spec: Spec, integer: nn.Module, change: dict[str, Any], json: bool) -> None:
    """Print what `--dry-run` found: the bits of every layer, and the size of the file that it does not write."""
    from fertool.artifact.store import pack
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result

    header = asdict(spec)
    size, before = len(pack(header, integer.state_dict())[1]), model.stat().st_size
    if json:
        print_json({"quant": header["quant"], "size_bytes_before": before, "size_bytes": size, "change": change})
    else:
        accuracy = header["metrics"]["accuracy"]
        result(
            tables.change_table(
                {"size_bytes": before, "accuracy": accuracy - change["difference"]},
                {"size_bytes": size, "accuracy": accuracy},
            )
        )
