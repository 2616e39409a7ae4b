"""`fertool train-teacher`, and what every command that trains does around the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from fertool.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.spec import Spec, Step
    from fertool.train import Objective


@command
def train_teacher(
    data: DataOption,
    output: Output = None,
    arch: ArchOptions = ArchOptions(),
    read: ReadOptions = ReadOptions(),
    training: TrainingOptions = TrainingOptions(),
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
    from fertool.artifact.atomic import require_writable
    from fertool.cli.data import open_source
    from fertool.cli.provenance import make_step

    output = output or Path(f"{arch.arch}.pt")
    require_writable(output, *_files(data, arch.init))
    source = open_source(data, read, size=arch.input_size, channels=arch.input_channels)
    train, val = source.split("train"), source.split("val")
    spec, module = new_model(arch, train, seed)
    step = make_step("train-teacher", options_of(arch, read, training), seed, data=train, init=arch.init)
    run_training(spec, module, step, train, val, training, output, seed=seed, device=device, json=json)


def new_model(arch: ArchOptions, train: FaceDataset, seed: int) -> tuple[Spec, nn.Module]:
    """Return the network that the options name, for the classes of `train`, seeded, with `--init` applied."""
    import torch

    from fertool import models
    from fertool.models.initial import load_initial
    from fertool.report.console import note
    from fertool.spec import InputSpec

    first = InputSpec()
    channels = arch.input_channels
    if channels == 2:
        raise UsageError("--input-channels 2: images have 1 or 3 channels", "use 1 (grayscale) or 3 (colour)")
    shape = InputSpec(channels, arch.input_size, first.mean * channels, first.std * channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        spec, module = models.create(arch.arch, parse_arch_args(arch.arch_arg), shape, train.classes)
    if arch.init:
        for line in load_initial(module, arch.init):
            note(line)
    return spec, module


def run_training(
    spec: Spec,
    module: nn.Module,
    step: Step,
    train: FaceDataset,
    val: FaceDataset,
    options: TrainingOptions,
    output: Path,
    *,
    seed: int,
    device: str,
    json: bool,
    objective: Objective | None = None,
) -> None:
    """Train, write `output` and remove its resume file, and say what came out; the end of every training command."""
    from fertool import models
    from fertool.cli.output import announce
    from fertool.train import discard_resume, resume_path

    history, spec = train_module(
        spec, module, train, val, options, output, seed=seed, device=device, objective=objective
    )
    spec = models.save_model(output, spec.with_step(step, metrics=spec.metrics), module)
    discard_resume(resume_path(output))
    write_curves(options.plot, {output.stem: history})
    announce(spec, output, json, history=history)


def train_module(
    spec: Spec,
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    options: TrainingOptions,
    output: Path,
    *,
    seed: int,
    device: str,
    objective: Objective | None = None,
) -> tuple[list[dict[str, Any]], Spec]:
    """Run the loop with a progress display; `module` ends with the best epoch's weights.

    Returns the history and the spec with the validation metrics in it.
    """
    from dataclasses import replace

    from fertool.metrics import to_metrics
    from fertool.report.console import TrainingProgress
    from fertool.train import fit, resume_path

    resume = resume_path(output)
    if not options.resume:
        resume.unlink(missing_ok=True)
    with TrainingProgress(options.epochs) as progress:
        result = fit(
            module,
            train,
            val,
            spec.input,
            train_config(options, seed),
            objective=objective,
            device=device,
            resume=resume,
            on_batch=progress.batch,
            on_epoch=progress.epoch,
        )
    spec = replace(spec, metrics=to_metrics(result.evaluation, val.split))
    return [asdict(record) for record in result.history], spec


def train_config(options: TrainingOptions, seed: int) -> Any:
    """Return the engine's configuration for the command-line options."""
    from fertool.data.augment import AugmentConfig
    from fertool.train import TrainConfig

    augmentation = AugmentConfig(
        flip=0.5 if options.flip else 0.0,
        rotation=options.rotation,
        translate=options.translation,
        scale=options.zoom,
        brightness=options.jitter,
        contrast=options.jitter,
        erasing=options.erasing,
        mixup=options.mixup,
    )
    return TrainConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        optimizer=options.optimizer,
        weight_decay=options.weight_decay,
        schedule=options.schedule_lr,
        warmup_epochs=options.warmup_epochs,
        label_smoothing=options.label_smoothing,
        ema=options.ema,
        clip_norm=options.clip_norm,
        patience=options.patience,
        augmentation=augmentation,
        seed=seed,
    )


def write_curves(path: Path | None, histories: Mapping[str, list[dict[str, Any]]]) -> None:
    """Write the training curves as a PNG if `--plot` asked for it."""
    if path:
        from fertool.artifact.atomic import write_atomic
        from fertool.report.figures import training_curves

        write_atomic(path, training_curves(histories))


def parse_arch_args(pairs: list[str] | None) -> dict[str, str]:
    """Return `KEY=VALUE` pairs as a dict; raises UsageError for anything else."""
    parsed = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--arch-arg {pair}: not KEY=VALUE", "for example --arch-arg width_mult=0.5")
        parsed[key] = value
    return parsed


def options_of(*groups: Any) -> dict[str, Any]:
    """Return the options for the provenance: without file names, which the digests of the inputs stand for."""
    merged: dict[str, Any] = {}
    for group in groups:
        merged.update(group if isinstance(group, Mapping) else asdict(group))
    return {key: value for key, value in merged.items() if not isinstance(value, Path) and key != "resume"}


def _files(*values: str | Path | None) -> list[Path]:
    return [Path(value) for value in values if value]


def require_data(data: str | None, why: str) -> str:
    """Return `data`, or raise the UsageError that says which option needs it."""
    if data is None:
        raise UsageError(f"{why} needs --data", "for example --data fer2013.csv or --data synth")
    return data
