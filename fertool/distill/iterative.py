"""Born again: the student of one round is the teacher of the next, and hands its weights on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from fertool.config.training import PrecisionName
from fertool.distill.objective import AnyTeacher, Teacher
from fertool.spec import InputSpec


def learn_iteratively(
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
    rounds: int,
    learn: Callable[[int, Sequence[AnyTeacher]], Any],
    *,
    input: InputSpec,
    classes: tuple[str, ...],
    precision: PrecisionName = "fp32",
) -> int:
    """Teach `student`, in place, in `rounds` rounds; returns the best one, counted from 1, whose weights it then has.

    `learn(round, teachers)` trains the student to its best epoch and returns how good it is there, the higher the
    better. The first round's teachers are those given, each later round's the student of the round before, from whose
    weights the student goes on (iterative transfer, recipe 3; without the weights, Furlanello et al. 2018).
    """
    results = []
    for number in range(1, rounds + 1):
        score = learn(number, teachers)
        taught = copy.deepcopy(student)
        results.append((score, taught.state_dict()))
        teachers = [Teacher(taught, input, classes, precision)]
    best = max(range(rounds), key=lambda index: results[index][0])
    student.load_state_dict(results[best][1])
    return best + 1
