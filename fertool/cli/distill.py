"""`fertool distill`: train a small network on the logits of larger ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fertool.cli.options import DataOption, Json, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.cli.sweep_options import requested_sweep
from fertool.config.distillation import DistillConfig
from fertool.config.pictures import CurvePictures
from fertool.config.reading import DataConfig
from fertool.config.run import RunConfig
from fertool.config.sweep import SweepTexts

if TYPE_CHECKING:
    from fertool.workflows.data import Data

Teachers = Annotated[
    list[Path],
    typer.Argument(
        metavar="TEACHER...", help="Teachers' .pt files, or files that --save-logits made."
    ),
]


def distill(
    context: typer.Context,
    teachers: Teachers,
    data: DataOption,
    output: Output = None,
    config: DistillConfig = DistillConfig(),
    read: DataConfig = DataConfig(),
    run: RunConfig = RunConfig(),
    texts: SweepTexts = SweepTexts(),
    pictures: CurvePictures = CurvePictures(),
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a student with one or several teachers, averaged in probability space.

    Epochs are chosen on the validation split, and so are the best seed and the best row of a grid.
    A killed run resumes from OUT.resume (OUT.round-N.resume in rounds); what a sweep has finished
    is not trained again.

    With --save-logits the teachers run once, before the training; the file of their logits stands
    for them in later runs, which are faster and need no teacher.

    Example: fertool distill teacher.pt -o student.pt --data fer2013.csv --arch micro_expnet

    Example: fertool distill teacher.logits -o student.pt --data fer2013.csv

    Example: fertool distill a.logits b.logits --epochs 0 --save-logits ab.logits --data faces

    Example: fertool distill teacher.pt -o best.pt --data fer2013.csv --grid "temperature=4,8"
    """
    from fertool.cli.output import print_trained
    from fertool.workflows.data import open_data
    from fertool.workflows.distill import distill
    from fertool.workflows.sweep import sweep
    from fertool.workflows.teacher_logits import require_no_model

    # Only to record the teachers: there is no student, and nothing that it would need.
    if not config.training.epochs:
        require_no_model(output, pictures)
        _record(teachers, open_data(data, read, reporter=CONSOLE), config, run, json)
        return
    output = output or Path(f"{config.network.name}.pt")
    asked = requested_sweep(context, texts, config, run.seed)
    faces = open_data(data, read, reporter=CONSOLE)
    settings: dict[str, Any] = {"config": config, "pictures": pictures, "run": run}
    settings |= {"output": output, "reporter": CONSOLE}
    if asked is None:
        student = distill(teachers, faces, **settings)
    else:
        student = sweep(distill, teachers, faces, seeds=asked.seeds, grid=asked.axes, **settings)
    print_trained(student, json)


def _record(
    teachers: list[Path], faces: Data, config: DistillConfig, run: RunConfig, json: bool
) -> None:
    """Record the teachers and train no student."""
    from fertool.cli.output import announce
    from fertool.workflows.teacher_logits import record_logits

    path = config.logits.save_logits
    assert path is not None
    recorded = record_logits(
        teachers, faces, config.recording, output=path, run=run, reporter=CONSOLE
    )
    announce(recorded.summary, json)
