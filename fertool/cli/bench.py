"""`fertool bench`: what model files cost on this machine, side by side."""

from __future__ import annotations

from pathlib import Path

from fertool.cli.options import FilesToMeasure, Json, OptionalData, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.benchmark import BenchConfig, SpeedLimit
from fertool.config.reading import ReadConfig


def bench(
    files: FilesToMeasure = None,
    data: OptionalData = None,
    config: BenchConfig = BenchConfig(),
    limit: SpeedLimit = SpeedLimit(),
    read: ReadConfig = ReadConfig(),
    output: Output = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Measure latency, throughput, memory and size of model files, and with --data the accuracy.

    Passes of the files alternate, so that what the machine does meanwhile cancels out of the
    speed-ups. The first file is the baseline. Accuracy is that of the validation split. Loading and
    the first pass are timed in new processes. With --against the exit code is 3 if a file is slower
    than the limit allows beyond doubt.

    Example: fertool bench student.onnx int8.onnx --data fer2013.csv

    Example: fertool bench int8.onnx --runtime onnxruntime --runtime openvino --batch-size 1,8,32

    Example: fertool bench --import pi5.json -o bench.json

    Example: fertool bench candidate.onnx --against current.json --max-regression 5%
    """
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result
    from fertool.workflows.benchmark import benchmark
    from fertool.workflows.data import open_data
    from fertool.workflows.outputs import require_files, write_json
    from fertool.workflows.speed_regression import require_speed

    faces = open_data(data, read, reporter=CONSOLE) if data else None
    files = files or []
    read_too = [*map(Path, config.imports), *([limit.against] if limit.against else [])]
    require_files([*files, *read_too], output, faces)
    measured = benchmark(files, config, limit, data=faces, reporter=CONSOLE)
    if output:
        write_json(output, measured.as_dict())
    if json:
        print_json(measured)
    else:
        result(tables.bench_table(measured))
        for line in tables.bench_warnings(measured):
            CONSOLE.warn(line)
    require_speed(measured)
