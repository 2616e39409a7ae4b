"""`distill --method iterative`: one training after the other, each in a state file of its own until the end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.cli.training import History, Round, TrainingRun
from fertool.config.option import with_values

if TYPE_CHECKING:
    from torch import nn

    from fertool.cli.options import TrainingOptions
    from fertool.distill import AnyTeacher
    from fertool.spec import Spec
    from fertool.train import Objective


def fit_rounds(
    run: TrainingRun,
    total: int,
    spec: Spec,
    module: nn.Module,
    teachers: Sequence[AnyTeacher],
    objective: Callable[[Sequence[AnyTeacher]], Objective],
) -> tuple[Spec, History]:
    """Train `module` in `total` rounds to the best epoch of the best one; returns its spec, and all rounds' history.

    The state of a finished round stays beside the output, and stands for the round when a killed run goes on.
    """
    from fertool.distill import distill_iteratively
    from fertool.report.console import note

    specs: list[Spec] = []
    history: History = []

    def learn(number: int, teachers: Sequence[AnyTeacher]) -> tuple[float, float]:
        nonlocal history
        one = replace(
            run,
            seed=round_seed(run.seed, number),
            round=Round(number, f"round {number}/{total}", history),
        )
        before = len(history)
        taught, history = one.fit(spec, module, objective(teachers))
        specs.append(taught)
        return max((record["val_accuracy"], -record["val_loss"]) for record in history[before:])

    best = distill_iteratively(
        *(module, teachers, total, learn),
        input=spec.input,
        classes=spec.classes,
        precision=run.options.config.precision,
    )
    note(f"round {best} of {total} is the best")
    return specs[best - 1], history


def start_from(module: nn.Module, teachers: Sequence[AnyTeacher], classes: tuple[str, ...]) -> None:
    """Give the first student the layers that it shares with its first live teacher, and say how many these are.

    The head is shared only when the classes stand in the same order.
    """
    from fertool.distill import Teacher
    from fertool.models.initial_weights import transfer_weights
    from fertool.report.console import note

    for teacher in [teacher for teacher in teachers if isinstance(teacher, Teacher)][:1]:
        copied, layers = transfer_weights(module, teacher.module, head=teacher.classes == classes)
        note(f"the student starts with {copied} of its {layers} layers from the teacher")


def for_epochs(options: TrainingOptions, epochs: int) -> TrainingOptions:
    """Return the options of a round that is shorter than its command may have meant: it warms up in half at most."""
    warmup_epochs = min(options.config.warmup_epochs, epochs / 2)
    return with_values(options, {"epochs": epochs, "warmup_epochs": warmup_epochs})


def round_seed(seed: int, number: int) -> int:
    """Return the seed of a round: that of the command in the first one, then others that depend on it."""
    if number == 1:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/round {number}".encode()).digest()[:4], "big")
