"""What every command does at its end: name its output, print JSON, and describe a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UNSET

if TYPE_CHECKING:
    from fertool import results
    from fertool.results.fields import Result
    from fertool.workflows.predict import Predictions
    from fertool.workflows.prediction_output import PredictionOutputs
    from fertool.workflows.prune import PrunedModel
    from fertool.workflows.quantize import QuantizedModel
    from fertool.workflows.training_task import TrainedModel


def print_json(result: Result) -> None:
    """Print a result as one JSON object on stdout."""
    from fertool.report.console import json_result

    json_result(result.as_dict())


def print_preview(preview: results.PrunePreview | results.QuantizePreview, as_json: bool) -> None:
    """Print what a command would do, as tables or as JSON."""
    from fertool.report.console import result
    from fertool.report.tables import preview_table

    if as_json:
        print_json(preview)
    else:
        result(preview_table(preview))


def announce(
    summary: results.ModelSummary | results.LogitsSummary | results.BundleResult, as_json: bool
) -> None:
    """Print the path of what a command wrote, or as JSON all that is known of it."""
    from fertool.report.console import path_result

    if as_json:
        print_json(summary)
    else:
        path_result(Path(str(summary.file)))


def print_changed(changed: PrunedModel | QuantizedModel, warning: str, as_json: bool) -> None:
    """Print the table of two models and the path of the new one, or all as JSON.

    With a warning where it is not measurably faster. Of several processes the first one does it.
    """
    from fertool.report.console import note, story
    from fertool.report.tables import Costs, change_table
    from fertool.workflows.prune import PrunedModel

    # Another process has written the model.
    if changed.path is None:
        return
    unlabeled = changed.unlabeled if isinstance(changed, PrunedModel) else None
    before, after = Costs.of(changed.before.summary), Costs.of(changed.summary)
    story(change_table(before, after, changed.change, unlabeled))
    interval = changed.change.speedup_ci95
    # Where the interval holds 1 the difference may be chance.
    if warning and interval is not UNSET and interval[0] <= 1:
        note(warning)
    announce(changed.summary, as_json)


def print_trained(model: TrainedModel, as_json: bool) -> None:
    """Print the path of a trained model, or as JSON what is known of it.

    Of several processes the first one does it.
    """
    from fertool import distributed
    from fertool.report.console import story
    from fertool.report.tables import sweep_table
    from fertool.workflows.sweep import SweepResult

    if not distributed.is_main_process():
        return
    if isinstance(model, SweepResult):
        story(sweep_table(model.results))
    announce(model.summary, as_json)


def print_predictions(
    predictions: Predictions, outputs: PredictionOutputs, as_json: bool, threads: int
) -> results.PredictionSummary:
    """Compute and write predictions; print them as JSON, or as lines where no file has them."""
    from fertool.report.console import note, text_lines
    from fertool.report.prediction_text import result_lines, summary_line
    from fertool.workflows.prediction_files import result_stream
    from fertool.workflows.prediction_output import save_predictions

    def show(result: results.PictureResult) -> None:
        if not as_json and outputs.results is None:
            text_lines(result_lines(result))

    writer = result_stream(sys.stdout, predictions.header) if as_json else None
    try:
        return save_predictions(
            predictions, outputs, writer=writer, on_result=show, threads=threads
        )
    finally:
        note(summary_line(predictions.summary))


def print_crops(report: results.CropReport, as_json: bool) -> None:
    """Print the folder of crops, or the report as JSON."""
    from fertool.report.console import note, path_result
    from fertool.report.prediction_text import crop_lines

    for line in crop_lines(report.pictures, report.crops, report.without_face, report.unreadable):
        note(line)
    if as_json:
        print_json(report)
    else:
        path_result(Path(report.output))
