"""Iterative distillation (born-again networks): the student of one round teaches the next one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fertool.config.training import PrecisionName
from fertool.distill.knowledge import AnyTeacher, Teacher
from fertool.spec import InputSpec


def distill_iteratively(
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
    rounds: int,
    train_round: Callable[[int, Sequence[AnyTeacher]], Any],
    *,
    input: InputSpec,
    classes: tuple[str, ...],
    precision: PrecisionName = "fp32",
) -> int:
    """Train `student`, in place, in `rounds` rounds; returns the best one, counted from 1.

    `train_round(round, teachers)` trains the student to its best epoch and returns its score there,
    the higher the better. The first round's teachers are those given, each later round's the
    student of the round before, from whose weights the student continues (iterative transfer,
    recipe 3; without the weights, Furlanello et al. 2018). In the end the student has the weights
    of the best round, the first of equal ones.
    """
    best_round = 0
    best_score: Any = None
    best_weights: dict[str, Tensor] = {}
    for number in range(1, rounds + 1):
        score = train_round(number, teachers)
        # A copy, since the student goes on changing.
        trained = copy.deepcopy(student)
        if best_round == 0 or score > best_score:
            best_round = number
            best_score = score
            best_weights = trained.state_dict()
        # The student alone from now on: each round has one teacher, the round before.
        teachers = [Teacher(trained, input, classes, precision)]
    student.load_state_dict(best_weights)
    return best_round
