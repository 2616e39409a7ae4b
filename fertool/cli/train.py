"""`fertool train-teacher`: train a network on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import training_command
from fertool.cli.inputs import require_inputs
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
from fertool.cli.splits import validation_of
from fertool.cli.sweep import SweepOptions, Trained, Trial, plan_sweep
from fertool.cli.teacher_logits import LogitOptions, open_teachers, record_teachers
from fertool.cli.training import TrainingRun, input_of, new_model, options_of

if TYPE_CHECKING:
    from fertool.spec import ProvenanceStep


@training_command
def train_teacher(
    context: typer.Context,
    data: DataOption,
    output: Output = None,
    arch: ArchOptions = ArchOptions(),
    read: ReadOptions = ReadOptions(),
    training: TrainingOptions = TrainingOptions(),
    sweep: SweepOptions = SweepOptions(),
    logits: LogitOptions = LogitOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a network on a data set and keep its best epoch.

    Epochs are chosen on the validation split (PublicTest of fer2013.csv), never on test images. A run that was killed
    goes on from OUT.resume and ends with the same file.

    Example: fertool train-teacher -o teacher.pt --data fer2013.csv --arch resnet18 --epochs 40

    Example: fertool train-teacher -o teacher.pt --data fer2013.csv --seeds 0,1,2 --plot curves.png
    """
    output = output or Path(f"{arch.name}.pt")
    inputs = [*read.inputs(data), *arch.files]
    plan = plan_sweep(context, sweep, seed, output, training)
    plan.require_outputs(training, *inputs)
    logits.require_output(output, inputs)
    require_inputs(*arch.files, data=data, read=read)
    shape = input_of(arch)
    source = open_source(data, read, size=shape.size, channels=shape.channels)
    images, val = source.split("train"), validation_of(source)

    def describe(trial: Trial) -> ProvenanceStep:
        options = options_of(arch, read, trial.of(training))
        return make_step(
            "train-teacher",
            options,
            trial.seed,
            data=images,
            init=arch.init,
            init_from=arch.init_from,
        )

    def train(trial: Trial) -> Trained:
        run = TrainingRun(images, val, trial.of(training), trial.output, trial.seed, device)
        spec, module = new_model(arch, images, trial.seed)
        spec, history = run.fit(spec, module)
        return Trained(run, spec, module, history)

    best = plan.carry_out(describe, train, training, json)
    if logits.save_logits:
        own = (logits, images, input_of(arch), best.of(training), read)
        record_teachers(
            open_teachers([output]), *own, command="train-teacher", seed=best.seed, device=device
        )
