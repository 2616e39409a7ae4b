"""Pruning in one shot, to a budget or to an accuracy."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from fertool.errors import FertoolError, UsageError
from fertool.pruning.budget import Targets, UnreachableError
from fertool.pruning.planning import PrunePlan
from fertool.pruning.profiles_session import ProfilesSession
from fertool.pruning.schedule import ProfileSchedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES

# How near the smallest passing budget is found, as a fraction of the MACs.
PRECISION = 0.02


@SCHEDULES.register("one-shot")
@dataclass(frozen=True)
class OneShot(ProfileSchedule):
    """Score the channels and remove the least important, then fine-tune.

    With `steps` this happens several times on the way, with nothing in between but the
    reconstruction of the layers. `max_drop`, points of validation accuracy, can take the place of a
    budget.
    """

    trains_first: ClassVar[bool] = False
    reconstructs: ClassVar[bool] = True

    steps: int = 1
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.steps > 1:
            raise UsageError(
                f"``steps={self.steps}``: what ``max_drop`` allows is removed in one step",
                "leave it out, or give ``target_flops``",
            )

    def require_budget(self, targets: Targets | None, *, has_latency: bool = False) -> None:
        """Raise UsageError for two budgets."""
        if self.max_drop is not None and (targets or has_latency):
            raise UsageError(
                f"``max_drop={self.max_drop:g}``: one-shot has a budget already",
                "give one of them, or ``schedule=prj``",
            )

    def preview(self, session: PruningSession) -> list[PrunePlan]:
        """Return the plan to the budget."""
        plan = session.preview(self.steps)
        return [plan] if plan else []

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Prune in steps of equal ratio, or to an accuracy; recover."""
        if self.max_drop is None:
            session.prune_in_steps(self.steps)
        else:
            prune_to_accuracy(session, self.max_drop, trainer)
        self.recover(session, trainer)

    def run_profiles(self, session: ProfilesSession, trainer: Trainer) -> None:
        """Prune all profiles in steps of equal ratio; recover."""
        if self.max_drop is not None:
            raise UsageError(
                f"``max_drop={self.max_drop:g}`` asks for one network, and a dynamic one has "
                f"{len(session.sessions)}",
                "give ``target_flops``",
            )
        session.prune_in_steps(self.steps)
        self.recover(session, trainer)


def prune_to_accuracy(session: PruningSession, max_drop: float, trainer: Trainer) -> None:
    """Remove as much as loses no more than `max_drop` points of accuracy, in one step.

    The smallest budget that passes is found by bisection. Raises FertoolError when even the
    smallest step loses more.
    """
    least_accuracy = trainer.measure_accuracy(session.start) - max_drop / 100
    scored = session.score()
    low, high = 0.0, 1.0
    best: float | None = None
    while high - low > PRECISION:
        middle = (low + high) / 2
        trial = copy.copy(session)
        try:
            step = session.plan_step(Targets(macs=middle), scored)
        except UnreachableError:
            low = middle
            continue
        trial.module = step.apply(session.module)
        if trainer.measure_accuracy(trial) >= least_accuracy:
            best = high = middle
        else:
            low = middle

    if best is None:
        raise FertoolError(
            f"no pruning loses less than {max_drop:g} points",
            "raise ``max_drop``, or lower ``round_to``",
        )
    # Planned again, since a step can be applied only once.
    session.apply(session.plan_step(Targets(macs=best), scored))
