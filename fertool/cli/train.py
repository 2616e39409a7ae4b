"""`fertool train-teacher`: train a network on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from fertool.cli.options import DataOption, Json, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.cli.sweep_options import requested_sweep
from fertool.config.pictures import CurvePictures
from fertool.config.reading import DataConfig
from fertool.config.run import RunConfig
from fertool.config.sweep import SweepTexts
from fertool.config.train_teacher import TrainTeacherConfig


def train_teacher(
    context: typer.Context,
    data: DataOption,
    output: Output = None,
    config: TrainTeacherConfig = TrainTeacherConfig(),
    read: DataConfig = DataConfig(),
    run: RunConfig = RunConfig(),
    texts: SweepTexts = SweepTexts(),
    pictures: CurvePictures = CurvePictures(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a network on a data set and keep its best epoch.

    Epochs are chosen on the validation split (PublicTest of fer2013.csv), never on test images. A
    killed run resumes from OUT.resume and ends with the same file.

    Example: fertool train-teacher -o teacher.pt --data fer2013.csv --arch resnet18 --epochs 40

    Example: fertool train-teacher -o t.pt --data fer2013.csv --votes fer2013new.csv --noise 0.3

    Example: fertool train-teacher -o teacher.pt --data fer2013.csv --seeds 0,1,2 --plot curves.png
    """
    from fertool.cli.output import print_trained
    from fertool.workflows.data import open_data
    from fertool.workflows.sweep import sweep
    from fertool.workflows.train import train

    output = output or Path(f"{config.network.name}.pt")
    asked = requested_sweep(context, texts, config, run.seed)
    faces = open_data(data, read, reporter=CONSOLE)
    settings: dict[str, Any] = {"config": config, "pictures": pictures, "run": run}
    settings |= {"output": output, "reporter": CONSOLE}
    if asked is None:
        model = train(faces, **settings)
    else:
        model = sweep(train, faces, seeds=asked.seeds, grid=asked.axes, **settings)
    print_trained(model, json)
