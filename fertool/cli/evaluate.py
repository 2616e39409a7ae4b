"""`fertool eval`: accuracy with its interval, on any split, of any model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.data import ModelData
from fertool.cli.groups import command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import (
    AnyModelFiles,
    DataOption,
    ForeignOptions,
    Json,
    Output,
    ReadOptions,
    Recipe,
    Split,
)
from fertool.errors import FertoolError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fertool.data.dataset import FaceDataset
    from fertool.data.source import DataSource
    from fertool.metrics import Evaluation
    from fertool.runtime import Predictor


@command
def evaluate(
    files: AnyModelFiles,
    data: DataOption,
    split: Annotated[
        Split, typer.Option(help="val is PublicTest of fer2013.csv, test is PrivateTest.")
    ] = "val",
    tta: Annotated[
        Literal["none", "flip", "ten-crop"],
        typer.Option(help="Average the answers to several views of each image."),
    ] = "none",
    read: ReadOptions = ReadOptions(),
    foreign: ForeignOptions = ForeignOptions(),
    output: Output = None,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Evaluate model files on the same images, with 95 % intervals and paired tests; changes no model file.

    Images that are exact copies of training images are left out of a second, de-duplicated figure. With --tta the
    figure of a single crop stands apart.

    Example: fertool eval student.onnx int8.onnx --data fer2013.csv --json

    Example: fertool eval student.onnx --data fer2013.csv --tta ten-crop
    """
    from fertool.artifact.atomic import require_writable
    from fertool.cli.output import print_json, write_json
    from fertool.report import tables
    from fertool.report.console import result

    if output:
        require_writable(output, *files, *read.inputs(data))
    require_inputs(*files, data=data, read=read)
    faces = ModelData(data, read)
    entries, correct, first = [], [], None
    for path in files:
        predictor = foreign.open(path)
        images = faces.of(predictor).split(split)
        first = first or images
        _require_same_images(path, images, files[0], first)
        entry, hits = evaluate_file(predictor, faces.of(predictor), split, tta)
        entries.append(entry)
        correct.append(hits)
    report = _report(entries, compare([entry["file"] for entry in entries], correct))
    if output:
        write_json(output, report)
    if json:
        print_json(report)
    else:
        for entry in entries:
            result(tables.eval_table(entry))
        if len(entries) > 1:
            result(tables.comparison_table(report["comparisons"]))


def evaluate_file(
    predictor: Predictor,
    source: DataSource,
    split: Split,
    tta: Literal["none", "flip", "ten-crop"] = "none",
) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return the `eval` figures of one file and which images [N] it got right.

    With test-time augmentation they are those of all views; what a single crop reaches stands apart.
    """
    import numpy as np

    from fertool.data.tta import tta_views
    from fertool.metrics import evaluate_logits
    from fertool.report.console import progress

    images = source.split(split)
    with progress(predictor.path.name) as on_progress:
        answers = [
            predictor.logits(view, on_progress=on_progress)
            for view in tta_views(images.images, tta)
        ]
    # Views vote with probabilities; one view keeps its logits, which calibration needs.
    logits = answers[0] if len(answers) == 1 else _log_mean_softmax(np.stack(answers))
    labels = images.labels.numpy()
    entry: dict[str, Any] = {"file": str(predictor.path), "split": split, "tta": tta}
    entry.update(asdict(evaluate_logits(logits, labels, predictor.classes)))
    entry["single_crop"] = None
    if tta != "none":
        alone = answers[0] if tta == "flip" else predictor.logits(images.images)
        entry["single_crop"] = _headline(evaluate_logits(alone, labels, predictor.classes))
    entry["digest"] = predictor.digest
    entry["foreign"] = asdict(predictor.assumptions) if predictor.assumptions else None
    entry["deduplicated"] = None
    # Without training images at hand nothing is known about copies of them.
    if split != "train" and "train" in source.splits:
        fresh = source.distinct_from(split, "train").numpy()
        if fresh.any():
            entry["deduplicated"] = _headline(
                evaluate_logits(logits[fresh], labels[fresh], predictor.classes)
            )
    return entry, logits.argmax(1) == labels


def compare(files: Sequence[str], correct: Sequence[NDArray[np.bool_]]) -> list[dict[str, Any]]:
    """Return the paired comparison of each file with the first one."""
    from fertool.metrics import compare_paired

    return [
        {"baseline": files[0], "candidate": name, **asdict(compare_paired(correct[0], hits))}
        for name, hits in zip(files[1:], correct[1:], strict=True)
    ]


def _report(entries: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the keys of `eval --json`: the same for one file and for many, and for one its own beside them."""
    alone = entries[0] if len(entries) == 1 else {}
    return {**alone, "results": entries, "comparisons": comparisons}


def _headline(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "n": evaluation.n,
        "accuracy": evaluation.accuracy,
        "accuracy_ci95": evaluation.accuracy_ci95,
    }


def _require_same_images(
    path: Path, images: FaceDataset, first_path: Path, first: FaceDataset
) -> None:
    """Raise FertoolError unless two models answer about the same images: those of classes that they lack are left out.

    Both come from one list in one order, so that the same names in the same order are the same images.
    """
    names, first_names = ([one.classes[k] for k in one.labels.tolist()] for one in (images, first))
    if names != first_names:
        raise FertoolError(
            f"{path}: knows {len(names)} of the images, {first_path} {len(first_names)}, for their classes differ",
            "compare models of the same classes, or evaluate each file alone",
        )


def _log_mean_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return [N, K], the logarithm of the mean softmax of `logits` [views, N, K]; finite however sure the model is."""
    import numpy as np

    wide = logits.astype(np.float64)
    log_p = wide - np.logaddexp.reduce(wide, axis=2, keepdims=True)
    mean: NDArray[np.float64] = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return mean
