"""Distillation on logits, in one training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fertool.distillation.knowledge import AnyTeacher
from fertool.distillation.method import DistillationMethod, Student, StudentTrainer
from fertool.registry import DISTILLATION_METHODS


@DISTILLATION_METHODS.register("kd")
@dataclass(frozen=True)
class LogitDistillation(DistillationMethod):
    """alpha T^2 KL(teacher, student) + (1 - alpha) CE.

    Hinton et al. 2015, section 2.
    """

    def train(
        self, student: Student, teachers: Sequence[AnyTeacher], trainer: StudentTrainer
    ) -> int:
        """Train once."""
        trainer.train(trainer.knowledge(teachers))
        return 1
