"""`fertool eval`: accuracy with its interval, on any split, of any model file."""

from __future__ import annotations

from fertool.cli.options import AnyModelFiles, DataOption, Json, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.evaluation import AccuracyLimit, EvaluationConfig
from fertool.config.pictures import CorruptionPictures
from fertool.config.reading import ReadConfig


def evaluate(
    files: AnyModelFiles,
    data: DataOption,
    config: EvaluationConfig = EvaluationConfig(),
    limit: AccuracyLimit = AccuracyLimit(),
    read: ReadConfig = ReadConfig(),
    pictures: CorruptionPictures = CorruptionPictures(),
    output: Output = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Evaluate model files on the same images, with 95 % intervals and paired tests.

    Images that are exact copies of training images are excluded from a second, deduplicated figure.
    With --tta the figure of a single crop stands apart. With --not-worse-than the exit code is 3 if
    a file has lost more points than allowed. With --corruptions the images get noise, blur, low
    resolution and more, each at five levels, the same on every machine.

    Example: fertool eval student.onnx int8.onnx --data fer2013.csv --json

    Example: fertool eval student.onnx --data fer2013.csv --tta ten-crop

    Example: fertool eval student.onnx --data fer2013.csv --corruptions all --plot corrupted.png

    Example: fertool eval new.onnx --data fer2013.csv --not-worse-than old.onnx --points 0.5
    """
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result
    from fertool.workflows import evaluate as workflow
    from fertool.workflows.accuracy_regression import require_accuracy
    from fertool.workflows.data import open_data
    from fertool.workflows.outputs import require_files, write_json

    faces = open_data(data, read, reporter=CONSOLE)
    baseline = [limit.not_worse_than] if limit.not_worse_than else []
    require_files([*files, *baseline], output, faces)
    report = workflow.evaluate(files, faces, config, limit, pictures=pictures, reporter=CONSOLE)
    if output:
        write_json(output, report.as_dict())
    if json:
        print_json(report)
    else:
        for entry in report.results:
            result(tables.eval_table(entry))
        if report.comparisons:
            result(tables.comparison_table(report.comparisons))
    require_accuracy(report)
