"""Pruning in steps with trainings in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fertool.pruning.planning import PrunePlan
from fertool.pruning.profiles_session import ProfilesSession
from fertool.pruning.schedule import AnySession, Phase, ProfileSchedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES


@SCHEDULES.register("iterative")
@dataclass(frozen=True)
class Iterative(ProfileSchedule):
    """Prune in steps of equal ratio with a short training after each.

    Recipe 4, progressive pruning.
    """

    reconstructs: ClassVar[bool] = True

    steps: int = 4
    step_epochs: int = 1

    def preview(self, session: PruningSession) -> list[PrunePlan]:
        """Return the plan to the budget, as it is without the trainings."""
        plan = session.preview(self.steps)
        return [plan] if plan else []

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Prune and train in turn, recover."""
        self._run(session, trainer)

    def run_profiles(self, session: ProfilesSession, trainer: Trainer) -> None:
        """Prune and train all profiles in turn, recover."""
        self._run(session, trainer)

    def _run(self, session: AnySession, trainer: Trainer) -> None:
        for number in range(1, self.steps + 1):
            session.prune_by(number / self.steps)
            # The recovery follows the last step.
            if number < self.steps and self.step_epochs:
                trainer.train(Phase(f"step {number}/{self.steps}", self.step_epochs), session)
        self.recover(session, trainer)
