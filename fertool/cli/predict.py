"""`fertool predict`: the expressions in pictures, videos and cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fertool.cli.options import AnyModelFile, Json, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.panels import OUTPUT
from fertool.config.predicting import PredictConfig, PredictionPictures


def predict(
    model: AnyModelFile,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, folders, patterns, videos, camera:0, rtsp://…, or - for stdin.",
            metavar="SOURCE...",
        ),
    ],
    config: PredictConfig = PredictConfig(),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The results, written as they come: .jsonl, .json or .csv.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    pictures: PredictionPictures = PredictionPictures(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Label the expressions of the faces in pictures, videos and cameras.

    Faces are found, turned upright and cut as the training images are. A picture without a face is
    a line that says so; one that cannot be read is named, and the exit code is 1 when all others
    are done. Ctrl-C ends with whole files.

    Not for inferring emotions at work or in education, which Art. 5(1)(f) of the EU's AI Act
    prohibits.

    Example: fertool predict student.onnx photos/ -o faces.csv --draw drawn/

    Example: fertool predict student.onnx clip.mp4 -o faces.jsonl --draw faces.mp4 --detect-size 320
    """
    from fertool.cli.output import print_predictions
    from fertool.workflows.predict import predict as workflow
    from fertool.workflows.prediction_output import (
        PredictionOutputs,
        require_all_read,
        require_prediction_outputs,
    )

    outputs = PredictionOutputs(output, pictures.draw, pictures.crops)
    predictions = workflow(model, sources, config, outputs=outputs.paths, reporter=CONSOLE)
    require_prediction_outputs(outputs, predictions)
    summary = print_predictions(predictions, outputs, json, config.threads)
    require_all_read(summary)
