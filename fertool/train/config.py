"""What a training run is asked to do, checked once; each message names the option."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fertool.data.augment import AugmentConfig
from fertool.errors import UsageError, unknown_name
from fertool.precision import PrecisionName

OptimizerName = Literal["sgd", "adam", "adamw"]
Keep = Literal["best", "last"]
ScheduleName = Literal["cosine", "onecycle", "plateau", "constant"]


@dataclass(frozen=True)
class TrainConfig:
    """The loop's options; the command line has defaults of its own (`fertool.cli.options`).

    `lr` is the peak; cosine and onecycle end at `lr * final_lr_ratio`, plateau multiplies by `plateau_factor` whenever
    the validation loss has not fallen for more than `plateau_patience` epochs. `momentum` is SGD's, and beta 1 of
    Adam. A step sees `accumulate` batches. `sam` is the radius rho of sharpness-aware minimisation, `ema` the decay of
    the running mean of the weights, `start_size` the side of the first epochs' images in pixels, `clip_norm` the
    largest gradient norm, `patience` the epochs without a better one before the run stops, `freeze_epochs` those in
    which the classifier's head alone is trained: 0 switches each of them off. `keep` says which epoch stays: the best
    on the validation images or, where the training leads somewhere, the last, for which patience is ignored.
    """

    epochs: int = 30
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 1e-3
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    sam: float = 0.0
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 0.0
    final_lr_ratio: float = 0.01
    plateau_factor: float = 0.1
    plateau_patience: int = 3
    ema: float = 0.0
    start_size: int = 0
    clip_norm: float = 0.0
    patience: int = 0
    freeze_epochs: int = 0
    keep: Keep = "best"
    precision: PrecisionName = "auto"
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, name, choices in (
            ("--optimizer", self.optimizer, get_args(OptimizerName)),
            ("--lr-schedule", self.schedule, get_args(ScheduleName)),
            ("--precision", self.precision, get_args(PrecisionName)),
        ):
            if name not in choices:
                raise unknown_name(flag, name, choices)
        _require("--epochs", self.epochs, 1)
        # Batch normalisation has no variance to take from a single image.
        _require("--batch-size", self.batch_size, 2)
        _require("--accumulate", self.accumulate, 1)
        _require("--lr", self.lr, 0, above=True)
        for flag, share in (("--momentum", self.momentum), ("--ema", self.ema)):
            _require(flag, share, 0, below=1)
        _require("--final-lr-ratio", self.final_lr_ratio, 0, most=1)
        _require("--plateau-factor", self.plateau_factor, 0, above=True, below=1)
        for flag, value in (
            ("--weight-decay", self.weight_decay),
            ("--clip-norm", self.clip_norm),
            ("--patience", self.patience),
            ("--start-size", self.start_size),
            ("--plateau-patience", self.plateau_patience),
        ):
            _require(flag, value, 0)
        _require("--sam", self.sam, 0, below=math.inf)
        for flag, epochs in (
            ("--warmup-epochs", self.warmup_epochs),
            ("--freeze-epochs", self.freeze_epochs),
        ):
            _require(flag, epochs, 0, below=self.epochs)


def _require(
    flag: str,
    value: float,
    least: float,
    *,
    above: bool = False,
    below: float = math.inf,
    most: float = math.inf,
) -> None:
    """Raise UsageError unless least <= value (or least < value), value < below and value <= most; NaN is refused."""
    if not ((value > least if above else value >= least) and value < below and value <= most):
        limits = [f"above {least}" if above else f"{least} or more"]
        limits += [f"below {below}"] if below < math.inf else []
        limits += [f"at most {most}"] if most < math.inf else []
        raise UsageError(
            f"{flag} {value}: must be {' and '.join(limits)}", f"see {flag} in the command's --help"
        )
