"""The trainings that a method of distillation asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.config.distillation import DistillationConfig
from fertool.workflows.rounds import for_round
from fertool.workflows.routing import remeasured
from fertool.workflows.training_run import Round, TrainingRun

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.training import PrecisionName
    from fertool.distillation import AnyTeacher, KnowledgeDistillation, Teacher
    from fertool.objective import Objective
    from fertool.results import Epoch
    from fertool.spec import Spec


class StudentTrainer:
    """Trains one student, in place, as often as a method asks for.

    `specs` are those of the student after each training, with its measures; `history` is that of
    all trainings. A numbered one is a round with a state of its own beside the output, which stands
    for the round when a killed run resumes.
    """

    def __init__(
        self,
        training: TrainingRun,
        config: DistillationConfig,
        spec: Spec,
        student: nn.Module,
        start_from: Teacher | None,
    ) -> None:
        self.start_from = start_from
        self.specs: list[Spec] = []
        self.history: list[Epoch] = []
        self._training = training
        self._config = config
        self._spec = spec
        self._student = student

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self._training.run.seed

    @property
    def precision(self) -> PrecisionName:
        """The precision of the trainings."""
        return self._training.config.precision

    def knowledge(
        self, teachers: Sequence[AnyTeacher], gamma: float | None = None
    ) -> KnowledgeDistillation:
        """Return the objective on the logits of these teachers, with the options of the run."""
        from fertool.distillation import KnowledgeDistillation

        return KnowledgeDistillation(
            teachers,
            input=self._spec.input,
            classes=self._spec.classes,
            temperature=self._config.temperature,
            alpha=self._config.alpha,
            gamma=gamma,
            loss=self._training.loss,
        )

    def train(
        self, objective: Objective, *, number: int = 0, count: int = 0
    ) -> tuple[float, float]:
        """Train the student; returns accuracy and negative loss of its best epoch."""
        training = self._training
        # A single training is that of a command without rounds: its state, history and bytes.
        if number:
            training = replace(
                training,
                run=for_round(training.run, number),
                round=Round(number, f"round {number}/{count}", self.history),
            )
        before = len(self.history)
        trained, self.history = training.fit(self._spec, self._student, objective)
        spec = remeasured(trained, self._student, training.val, training.reporter)
        self.specs.append(spec)
        epochs = self.history[before:]
        return max(record.rank for record in epochs)

    def note(self, text: str) -> None:
        """Tell the user."""
        self._training.reporter.note(text)
