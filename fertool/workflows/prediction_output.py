"""Send predictions to where they are wanted, and end well whenever the run ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fertool.artifact.atomic import require_writable
from fertool.errors import FertoolError, UsageError
from fertool.results import PictureResult, PredictionSummary
from fertool.workflows.predict import Predictions
from fertool.workflows.prediction_files import (
    CropFiles,
    DrawnFiles,
    ResultWriter,
    is_single_drawing,
    require_result_suffix,
    result_file,
)


@dataclass(frozen=True)
class PredictionOutputs:
    """Where results, drawn pictures or videos, and the crops that were classified are written."""

    results: Path | None = None
    draw: Path | None = None
    crops: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """All paths that are given."""
        return [path for path in (self.results, self.draw, self.crops) if path is not None]


def require_prediction_outputs(outputs: PredictionOutputs, predictions: Predictions) -> None:
    """Raise FertoolError early for outputs that cannot be written or replace an input."""
    inputs = [Path(predictions.header.model), *predictions.files]
    if outputs.results is not None:
        require_result_suffix(outputs.results)
        require_writable(outputs.results, *inputs)
    for folder in (outputs.draw, outputs.crops):
        if folder is None:
            continue
        if folder is outputs.draw and is_single_drawing(folder):
            _require_one_source(folder, predictions)
            require_writable(folder, *inputs)
        else:
            # Any name in it: whether files can be made there at all.
            require_writable(folder / "0.png")


def save_predictions(
    predictions: Predictions,
    outputs: PredictionOutputs = PredictionOutputs(),
    *,
    writer: ResultWriter | None = None,
    on_result: Callable[[PictureResult], None] = lambda result: None,
    threads: int = 1,
) -> PredictionSummary:
    """Compute all predictions and write them as they come; returns what was seen.

    `writer` receives them too. Ctrl-C ends the run with valid files, and is raised again then.
    """
    interruption: KeyboardInterrupt | None = None
    with ExitStack() as stack:
        writers = [writer] if writer else []
        if outputs.results is not None:
            writers.append(stack.enter_context(result_file(outputs.results, predictions.header)))
        pictures = _picture_files(predictions, outputs, threads, stack)
        try:
            for labeled in predictions.with_images():
                for each in writers:
                    each.add(labeled.result)
                for files in pictures:
                    files.add(labeled)
                on_result(labeled.result)
        except KeyboardInterrupt as stopped:
            # The usual end of a camera: what is written so far is completed first.
            interruption = stopped
        for each in writers:
            each.finish(predictions.summary)
    if interruption is not None:
        raise interruption
    return predictions.summary


def _picture_files(
    predictions: Predictions, outputs: PredictionOutputs, threads: int, stack: ExitStack
) -> list[DrawnFiles | CropFiles]:
    """Return what draws and what cuts; the stack completes a video, or removes a part of one."""
    files: list[DrawnFiles | CropFiles] = []
    if outputs.draw is not None:
        drawn = DrawnFiles(outputs.draw, predictions.files, threads)
        stack.push(drawn.leave)
        files.append(drawn)
    if outputs.crops is not None:
        files.append(CropFiles(outputs.crops, predictions.files))
    return files


def require_all_read(summary: PredictionSummary) -> None:
    """Raise FertoolError, when all is done, if anything could not be read."""
    if summary.unreadable:
        raise FertoolError(
            f"{summary.unreadable} of {summary.pictures} could not be read",
            "the results of all others are complete",
        )


def _require_one_source(target: Path, predictions: Predictions) -> None:
    if len(predictions.sources) != 1:
        raise UsageError(
            f"``draw``: {target} is one file, for {len(predictions.sources)} pictures or videos",
            "name a folder",
        )
