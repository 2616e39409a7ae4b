"""Distillation in rounds: one training after the other, each with a state file until the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.reporter import Reporter
from fertool.workflows.outputs import History
from fertool.workflows.rounds import for_round
from fertool.workflows.training_run import Round, TrainingRun

if TYPE_CHECKING:
    from torch import nn

    from fertool.distill import AnyTeacher
    from fertool.spec import Spec
    from fertool.train import Objective


def fit_rounds(
    training: TrainingRun,
    rounds: int,
    spec: Spec,
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
    objective_of: Callable[[Sequence[AnyTeacher]], Objective],
) -> tuple[Spec, History]:
    """Train `student`, in place, in so many rounds to the best epoch of the best one.

    Returns its spec and the history of all rounds. The state of a finished round stays beside the
    output, and stands for the round when a killed run resumes.
    """
    from fertool.distill import distill_iteratively

    specs: list[Spec] = []
    history: History = []

    def train_round(number: int, teachers: Sequence[AnyTeacher]) -> tuple[float, float]:
        nonlocal history
        this_round = replace(
            training,
            run=for_round(training.run, number),
            round=Round(number, f"round {number}/{rounds}", history),
        )
        before = len(history)
        trained_spec, history = this_round.fit(spec, student, objective_of(teachers))
        specs.append(trained_spec)
        return max((record["val_accuracy"], -record["val_loss"]) for record in history[before:])

    best = distill_iteratively(
        student,
        teachers,
        rounds,
        train_round,
        input=spec.input,
        classes=spec.classes,
        precision=training.config.precision,
    )
    training.reporter.note(f"round {best} of {rounds} is the best")
    return specs[best - 1], history


def start_from_teacher(
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
    classes: tuple[str, ...],
    reporter: Reporter,
) -> None:
    """Give the student, in place, the layers that it shares with the first teacher that is a model.

    The head is shared only when the classes stand in the same order.
    """
    from fertool.distill import Teacher
    from fertool.models.initial_weights import transfer_weights

    live = [teacher for teacher in teachers if isinstance(teacher, Teacher)]
    if not live:
        return
    teacher = live[0]
    has_same_head = teacher.classes == classes
    copied, layers = transfer_weights(student, teacher.module, head=has_same_head)
    reporter.note(f"the student starts with {copied} of its {layers} layers from the teacher")
