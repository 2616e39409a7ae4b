"""What a training run is asked to do, checked once; each message names the option."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from fertool.data.augment import AugmentConfig
from fertool.errors import UsageError, unknown_name

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "onecycle", "constant"]


@dataclass(frozen=True)
class TrainConfig:
    """The loop's options; the command line has defaults of its own (`fertool.cli.options`).

    `lr` is the peak and the last step's is `lr * final_lr_ratio`; `ema` is the decay of the running mean of the
    weights, `clip_norm` the largest gradient norm, `patience` the epochs without a better one before the run stops:
    0 switches each of them off.
    """

    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 0.0
    final_lr_ratio: float = 0.01
    label_smoothing: float = 0.0
    ema: float = 0.0
    clip_norm: float = 0.0
    patience: int = 0
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, name, choices in (
            ("--optimizer", self.optimizer, get_args(OptimizerName)),
            ("--lr-schedule", self.schedule, get_args(ScheduleName)),
        ):
            if name not in choices:
                raise unknown_name(flag, name, choices)
        _require("--epochs", self.epochs, 1)
        # Batch normalisation has no variance to take from a single image.
        _require("--batch-size", self.batch_size, 2)
        _require("--lr", self.lr, 0, above=True)
        for flag, share in (("--momentum", self.momentum), ("--label-smoothing", self.label_smoothing)):
            _require(flag, share, 0, below=1)
        _require("--ema", self.ema, 0, below=1)
        _require("--final-lr-ratio", self.final_lr_ratio, 0, most=1)
        for flag, value in (("--weight-decay", self.weight_decay), ("--clip-norm", self.clip_norm)):
            _require(flag, value, 0)
        _require("--patience", self.patience, 0)
        _require("--warmup-epochs", self.warmup_epochs, 0, below=self.epochs)


def _require(
    flag: str, value: float, least: float, *, above: bool = False, below: float = math.inf, most: float = math.inf
) -> None:
    """Raise UsageError unless least <= value (or least < value), value < below and value <= most; NaN is refused."""
    if not ((value > least if above else value >= least) and value < below and value <= most):
        limits = [f"above {least}" if above else f"{least} or more"]
        limits += [f"below {below}"] if below < math.inf else []
        limits += [f"at most {most}"] if most < math.inf else []
        raise UsageError(f"{flag} {value}: must be {' and '.join(limits)}", f"see {flag} in the command's --help")
