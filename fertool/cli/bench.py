"""`fertool bench`: what model files cost on this machine, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fertool.cli.data import ModelData, open_source
from fertool.cli.evaluate import evaluate_file
from fertool.cli.groups import command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import (
    AnyModelFiles,
    ForeignOptions,
    Json,
    OptionalData,
    Output,
    ReadOptions,
    Recipe,
)

if TYPE_CHECKING:
    from fertool.runtime import Predictor


@command
def bench(
    files: AnyModelFiles,
    data: OptionalData = None,
    threads: Annotated[
        int, typer.Option(help="Threads for one pass, the same for every file.", min=1)
    ] = 1,
    batch_size: Annotated[int, typer.Option(help="Images per pass.", min=1)] = 1,
    warmup: Annotated[int, typer.Option(help="Passes before timing, for each file.", min=0)] = 100,
    runs: Annotated[int, typer.Option(help="Timed passes, for each file.", min=1)] = 1000,
    read: ReadOptions = ReadOptions(),
    foreign: ForeignOptions = ForeignOptions(),
    output: Output = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size of model files, and accuracy when --data is given.

    Passes of the files alternate, so that what the machine does meanwhile cancels out of the speed-ups. The first
    file is the baseline. Accuracy is that of the validation split.

    Example: fertool bench student.onnx int8.onnx --data fer2013.csv
    """
    import numpy as np

    from fertool.artifact.atomic import require_writable
    from fertool.cli.output import print_json, write_json
    from fertool.report import tables
    from fertool.report.console import progress, result, warn
    from fertool.runtime import BenchConfig
    from fertool.runtime import bench as run_bench

    if output:
        require_writable(output, *files, *read.inputs(data))
    require_inputs(*files, data=data, read=read)
    config = BenchConfig(
        threads=threads,
        batch_size=batch_size,
        warmup=warmup,
        runs=runs,
        foreign=foreign.model,
        time_limit_s=foreign.time_limit,
    )
    accuracies: dict[str, Any] = {}
    faces = ModelData(data, read) if data else None
    if faces:
        for path in files:
            predictor = foreign.open(path)
            entry, _ = evaluate_file(predictor, faces.of(predictor), "val")
            accuracies[entry["file"]] = {
                key: entry[key] for key in ("split", "n", "accuracy", "accuracy_ci95")
            }

    def images(predictor: Predictor) -> Any:
        shape = predictor.input
        if not faces:
            foreign.explain(predictor)
        # Drawn faces have seven classes, which need not be the model's; only the images are used.
        source = (
            faces.of(predictor)
            if faces
            else open_source("synth:280", ReadOptions(), size=shape.size, channels=shape.channels)
        )
        return np.ascontiguousarray(source.split("val").images[:256].numpy())

    with progress("bench") as on_progress:
        measured = run_bench(files, config, images, on_progress).with_accuracies(accuracies)
    report = measured.as_dict()
    if output:
        write_json(output, report)
    if json:
        print_json(report)
    else:
        result(tables.bench_table(report))
        for line in tables.bench_warnings(report):
            warn(line)
