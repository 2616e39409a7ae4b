"""What every command does at its end: name its output, print JSON, and describe a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable, write_atomic
from fertool.artifact.input_files import require_file
from fertool.artifact.logits_header import LogitsSpec
from fertool.errors import FertoolError, UsageError
from fertool.spec import Spec

if TYPE_CHECKING:
    from fertool.faces.results import PictureResult, PredictionSummary
    from fertool.workflows.crop_faces import CropReport
    from fertool.workflows.data import Data
    from fertool.workflows.model import Model
    from fertool.workflows.outputs import History
    from fertool.workflows.predict import Predictions
    from fertool.workflows.prediction_output import PredictionOutputs


def default_output(model: Path, stage: str, suffix: str = ".pt") -> Path:
    """Return the output's name when there is no -o: `model.pt` pruned is `model.pruned.pt`, beside it.

    Raises FertoolError for `.` and `/`, which are no files and have no name to follow.
    """
    if not model.name:
        require_file(model)
    return model.with_name(f"{model.stem}.{stage}{suffix}" if stage else f"{model.stem}{suffix}")


def require_picture(flag: str, path: Path | None, output: Path, *inputs: Path) -> None:
    """Fail before any work when the picture of an option cannot be drawn or written, or would replace a file."""
    from fertool.report.plots.drawing import require_matplotlib

    if path is None:
        return
    require_writable(path, *inputs)
    if path.resolve() == output.resolve():
        raise UsageError(
            f"{flag} {path}: the result goes there", "name another file, for example picture.png"
        )
    require_matplotlib()


def require_files(files: Sequence[Path], output: Path | None, data: Data | None) -> None:
    """Raise FertoolError, before any work, for a missing file or an output that replaces an input."""
    if output:
        require_writable(output, *files, *(data.files if data else []))
    for file in files:
        require_file(file)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout: SI base units, units in the keys."""
    from fertool.report.console import json_result

    json_result(value)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON object to a file, atomically."""
    from fertool.report.printable import json_text

    write_atomic(path, f"{json_text(value)}\n".encode())


def spec_as_json(spec: Spec | LogitsSpec, file: Path) -> dict[str, Any]:
    """Return the keys of `show --json` for a file and its spec."""
    about = {"file": str(file), "size_bytes": file.stat().st_size}
    if isinstance(spec, LogitsSpec):
        return {**about, **asdict(spec)}
    return {**about, **spec.shown()}


def announce(spec: Spec | LogitsSpec, file: Path, as_json: bool, **extra: Any) -> None:
    """Print the result of a command that wrote a file: its path, or as JSON what `show` says and `extra`."""
    from fertool.report.console import path_result

    if as_json:
        print_json({**spec_as_json(spec, file), **extra})
    else:
        path_result(file)


def write_curves(path: Path | None, name: str, history: History) -> None:
    """Write the curves of a model's trainings as a PNG, if a path is given."""
    from fertool.report.plots.training_curves import plot_training_curves, split_rounds

    if path is not None:
        write_atomic(path, plot_training_curves(split_rounds(name, history)))


def print_change(before: Model, after: Model, change: Mapping[str, Any], warning: str) -> None:
    """Print the table of two models, and a warning where the new one is not measurably faster."""
    from fertool.report.console import note, story
    from fertool.report.tables import change_table

    sides: list[dict[str, Any]] = []
    for model, suffix in ((before, "_before"), (after, "")):
        side: dict[str, Any] = {
            "size_bytes": model.size_bytes,
            "params": model.spec.params,
            "macs": model.spec.macs,
        }
        for key in ("latency_s", "accuracy", "commonest_share"):
            side[key] = change.get(f"{key}{suffix}")
        sides.append(side)
    story(change_table(sides[0], {**change, **sides[1]}))
    if change.get("speedup_ci95", (2.0, 2.0))[0] <= 1:
        note(warning)


def print_predictions(
    predictions: Predictions, outputs: PredictionOutputs, as_json: bool, threads: int
) -> PredictionSummary:
    """Compute and write predictions; print them as JSON, or as lines where no file has them."""
    from fertool.report.console import note, text_lines
    from fertool.report.prediction_text import result_lines, summary_line
    from fertool.workflows.prediction_files import result_stream
    from fertool.workflows.prediction_output import save_predictions

    def show(result: PictureResult) -> None:
        if not as_json and outputs.results is None:
            text_lines(result_lines(result))

    writer = result_stream(sys.stdout, predictions.header) if as_json else None
    try:
        return save_predictions(
            predictions, outputs, writer=writer, on_result=show, threads=threads
        )
    finally:
        note(summary_line(predictions.summary))


def print_crops(report: CropReport, output: Path, as_json: bool) -> None:
    """Print the folder of crops, or the report as JSON; fails if a picture could not be read."""
    from fertool.report.console import note, path_result
    from fertool.report.prediction_text import crop_lines

    for line in crop_lines(report.pictures, report.crops, report.without_face, report.unreadable):
        note(line)
    if as_json:
        print_json(report.as_dict())
    else:
        path_result(output)
    if report.unreadable:
        raise FertoolError(
            f"{len(report.unreadable)} of {report.pictures} could not be read",
            "all others are done",
        )
