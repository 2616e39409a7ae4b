"""The interface of a method of distillation: how a student is trained by its teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import nn

from fertool.config.training import PrecisionName
from fertool.distillation.knowledge import AnyTeacher, KnowledgeDistillation, Teacher
from fertool.objective import Objective
from fertool.registry import DISTILLATION_METHODS
from fertool.spec import InputSpec

Score = tuple[float, float]
"""Of a trained student, the higher the better: accuracy and negative loss on validation images."""


@dataclass(frozen=True)
class Student:
    """The network to be trained, in place."""

    module: nn.Module
    input: InputSpec
    classes: tuple[str, ...]


class StudentTrainer(Protocol):
    """What a method needs of its caller.

    `start_from` is a teacher whose weights the student may start from, None where it has weights
    already or no teacher is a model.
    """

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def precision(self) -> PrecisionName: ...  # noqa: D102

    @property
    def start_from(self) -> Teacher | None: ...  # noqa: D102

    def knowledge(
        self, teachers: Sequence[AnyTeacher], gamma: float | None = None
    ) -> KnowledgeDistillation:
        """Return the objective on the logits of these teachers; `gamma` weights the labels."""

    def train(self, objective: Objective, *, number: int = 0, count: int = 0) -> Score:
        """Train the student to its best epoch; of several trainings the `number`th of `count`."""

    def note(self, text: str) -> None:
        """Tell the user."""


@dataclass(frozen=True)
class DistillationMethod(ABC):
    """A way to train a student; the fields of a member are the options that it alone has.

    `needs_live_teachers`: cached logits of a teacher are not enough.
    """

    needs_live_teachers: ClassVar[bool] = False

    @abstractmethod
    def train(
        self, student: Student, teachers: Sequence[AnyTeacher], trainer: StudentTrainer
    ) -> int:
        """Train the student in place; returns the number of the training that it comes from."""


def load_method(name: str, **options: Any) -> DistillationMethod:
    """Return the method of this name; raises UsageError with the choices for another name."""
    member: type[DistillationMethod] = DISTILLATION_METHODS.load(name)
    return member(**options)
