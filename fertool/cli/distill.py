"""`fertool distill`: train a small network on what larger ones say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.options import (
    ArchOptions,
    DataOption,
    Device,
    Json,
    Output,
    ReadOptions,
    Recipe,
    Seed,
    TrainingOptions,
)
from fertool.cli.provenance import make_step
from fertool.cli.training import TrainingRun, new_model, options_of, require_outputs


@dataclass(frozen=True)
class StudentOptions(ArchOptions):
    """What student to make; by default recipe 1's."""

    arch: Annotated[
        str, typer.Option(help="A name of the zoo; a wrong one lists them all.", rich_help_panel="Model")
    ] = "micro_expnet"


@dataclass(frozen=True)
class DistillOptions:
    """How the student listens to its teachers."""

    temperature: Annotated[
        float, typer.Option(help="Softens both distributions.", min=0.1, rich_help_panel="Distillation")
    ] = 4.0
    alpha: Annotated[
        float,
        typer.Option(help="Weight of the teacher's part of the loss.", min=0, max=1, rich_help_panel="Distillation"),
    ] = 0.7
    method: Annotated[
        Literal["kd"],
        typer.Option(help="kd: alpha T^2 KL(teacher, student) + (1 - alpha) CE.", rich_help_panel="Distillation"),
    ] = "kd"


@command
def distill(
    teachers: Annotated[list[Path], typer.Argument(metavar="TEACHER...", help="Teachers' .pt files.")],
    data: DataOption,
    output: Output = None,
    arch: StudentOptions = StudentOptions(),
    distillation: DistillOptions = DistillOptions(),
    read: ReadOptions = ReadOptions(),
    training: TrainingOptions = TrainingOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a student with one or several teachers, averaged in probability space.

    Epochs are chosen on the validation split; a killed run goes on from OUT.resume.

    Example: fertool distill teacher.pt -o student.pt --data fer2013.csv --arch micro_expnet
    """
    from fertool import models
    from fertool.device import resolve_device
    from fertool.distill import KnowledgeDistillation, Teacher

    output = output or Path(f"{arch.arch}.pt")
    inputs = [*teachers, *read.inputs(data), *([arch.init] if arch.init else [])]
    require_outputs(output, training, *inputs)
    loaded = [models.load_model(path) for path in teachers]
    source = open_source(data, read, size=arch.input_size, channels=arch.input_channels)
    run = TrainingRun(source.split("train"), source.split("val"), training, output, seed, device)
    spec, module = new_model(arch, run.train, seed)
    objective = KnowledgeDistillation(
        [Teacher(teacher.to(resolve_device(device)), its.input, its.classes) for its, teacher in loaded],
        input=spec.input,
        classes=spec.classes,
        temperature=distillation.temperature,
        alpha=distillation.alpha,
        loss=run.loss,
    )
    digests = {f"teacher.{i}": its.digest for i, (its, _) in enumerate(loaded)}
    options = options_of(arch, distillation, read, training)
    step = make_step("distill", options, seed, data=run.train, init=arch.init, **digests)
    spec, history = run.fit(spec, module, objective)
    run.finish(spec, module, step, history, json)
