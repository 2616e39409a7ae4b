"""Iterative distillation (born-again networks): the student of one round teaches the next one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fertool.distillation.knowledge import AnyTeacher, Teacher
from fertool.distillation.method import DistillationMethod, Score, Student, StudentTrainer
from fertool.models.initial_weights import transfer_weights
from fertool.registry import DISTILLATION_METHODS


@DISTILLATION_METHODS.register("iterative")
@dataclass(frozen=True)
class IterativeDistillation(DistillationMethod):
    """kd in rounds, each student teaching the next, which goes on from its weights.

    Iterative transfer, recipe 3; without the weights, the born-again networks of Furlanello et al.
    2018, section 3.
    """

    rounds: int = 3

    def train(
        self, student: Student, teachers: Sequence[AnyTeacher], trainer: StudentTrainer
    ) -> int:
        """Train in rounds; in the end the student has the weights of the best one.

        The first round's teachers are those given, each later round's the student of the round
        before. Of equal rounds the first is the best.
        """
        _start_from_teacher(student, trainer)
        best_round = 0
        best_score: Score = (0.0, 0.0)
        best_weights: dict[str, Tensor] = {}
        for number in range(1, self.rounds + 1):
            objective = trainer.knowledge(teachers)
            score = trainer.train(objective, number=number, count=self.rounds)
            # A copy, since the student goes on changing.
            trained = copy.deepcopy(student.module)
            if best_round == 0 or score > best_score:
                best_round = number
                best_score = score
                best_weights = trained.state_dict()
            # From the second round on there is one teacher: the student of the round before.
            teachers = [Teacher(trained, student.input, student.classes, trainer.precision)]
        student.module.load_state_dict(best_weights)
        trainer.note(f"round {best_round} of {self.rounds} is the best")
        return best_round


def _start_from_teacher(student: Student, trainer: StudentTrainer) -> None:
    """Give the student the layers that it shares with a teacher.

    The head is shared only when the classes stand in the same order.
    """
    teacher = trainer.start_from
    if teacher is None:
        return
    has_same_head = teacher.classes == student.classes
    copied, layers = transfer_weights(student.module, teacher.module, head=has_same_head)
    trainer.note(f"the student starts with {copied} of its {layers} layers from the teacher")
