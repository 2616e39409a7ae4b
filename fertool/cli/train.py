"""`fertool train-teacher`: train a network on a data set."""

from __future__ import annotations

from pathlib import Path

from fertool.cli.data import open_source
from fertool.cli.groups import command
from fertool.cli.logits import LogitOptions, open_teachers, record_teachers
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


@command
def train_teacher(
    data: DataOption,
    output: Output = None,
    arch: ArchOptions = ArchOptions(),
    read: ReadOptions = ReadOptions(),
    training: TrainingOptions = TrainingOptions(),
    logits: LogitOptions = LogitOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a network on a data set and keep its best epoch.

    Epochs are chosen on the validation split (PublicTest of fer2013.csv); the test split is never read. A run that
    was killed goes on from OUT.resume and ends with the same file.

    Example: fertool train-teacher -o teacher.pt --data fer2013.csv --arch resnet18 --epochs 40
    """
    output = output or Path(f"{arch.arch}.pt")
    inputs = [*read.inputs(data), *([arch.init] if arch.init else [])]
    require_outputs(output, training, *inputs)
    logits.require_output(output, inputs)
    source = open_source(data, read, size=arch.input_size, channels=arch.input_channels)
    run = TrainingRun(source.split("train"), source.split("val"), training, output, seed, device)
    spec, module = new_model(arch, run.train, seed)
    step = make_step("train-teacher", options_of(arch, read, training), seed, data=run.train, init=arch.init)
    spec, history = run.fit(spec, module)
    written = run.finish(spec, module, step, history, json)
    if logits.save_logits:
        own = (logits, run.train, written.input, training, read)
        record_teachers(open_teachers([output]), *own, command="train-teacher", seed=seed, device=device)
