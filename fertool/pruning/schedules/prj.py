"""Punish, reward, judge."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fertool.errors import FertoolError
from fertool.graph.channels import trace_channels
from fertool.pruning.budget import Targets, UnreachableError
from fertool.pruning.penalties import ScaleSparsity
from fertool.pruning.schedule import Phase, Schedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES


@SCHEDULES.register("prj")
@dataclass(frozen=True)
class PunishRewardJudge(Schedule):
    """Remove few channels at a time, train under sparsity, undo what loses too much.

    Sun, thesis, section 3.2.3. Punishing removes the fraction `punish_share` of the channels
    `punish_epochs` times, while all but the convolutions learns on a few images; the reward is a
    training of everything under `λ Σ|γ|` with λ = `sparsity`. A cycle after which the network is
    worse by more than `max_drop` points of validation accuracy is undone, and ends the loop; so
    does the budget. Without a budget the judge alone decides.
    """

    criterion: ClassVar[str] = "taylor"

    punish_epochs: int = 10
    punish_share: float = 0.002
    reward_epochs: int = 2
    sparsity: float = 1e-4
    max_drop: float = 1.0

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Run cycles until the judge or the budget ends them, recover.

        Raises FertoolError when the first cycle loses too much, or when not even the smallest step
        can be made.
        """
        # Before a cycle of trainings that its reward could not end.
        self._penalty(session)
        least_accuracy = trainer.measure_accuracy(session.start) - self.max_drop / 100
        first_plan = session.plan
        for cycle in itertools.count(1):
            # The reward trains in place: an undone cycle needs the weights of before.
            plan_before = session.plan
            spec_before = session.spec
            module_before = copy.deepcopy(session.module)
            self._punish_cycle(session, trainer, cycle, must_remove=plan_before is first_plan)
            if session.plan is plan_before:
                break
            accuracy = self._reward(session, trainer, cycle)
            if accuracy < least_accuracy:
                session.plan = plan_before
                session.spec = spec_before
                session.module = module_before
                break

        has_targets = session.constraints.targets is not None
        if session.plan is first_plan and (not has_targets or session.remaining_budget()):
            raise FertoolError(
                f"the first cycle of pruning lost more than {self.max_drop:g} points",
                "raise ``max_drop``, or train longer with ``reward_epochs``",
            )
        self.recover(session, trainer)

    def _punish_cycle(
        self, session: PruningSession, trainer: Trainer, cycle: int, *, must_remove: bool
    ) -> None:
        """Remove channels `punish_epochs` times, each time with an epoch on the scoring images.

        `must_remove`: a first step that can remove nothing is an error.
        """
        first_plan = session.plan
        for epoch in range(1, self.punish_epochs + 1):
            nothing_yet = must_remove and session.plan is first_plan
            if not self._punish(session, must_remove=nothing_yet):
                continue
            phase = Phase(
                f"cycle {cycle}, punish {epoch}",
                epochs=1,
                on_scoring_subset=True,
                frozen=_convolution_weights(session.module),
            )
            trainer.train(phase, session)

    def _punish(self, session: PruningSession, *, must_remove: bool) -> bool:
        """Remove a fraction of the channels; returns whether there was anything to remove."""
        has_targets = session.constraints.targets is not None
        if has_targets and session.remaining_budget() is None:
            return False
        try:
            session.apply(session.plan_step(Targets(channels=1 - self.punish_share)))
        except UnreachableError:
            # Without a budget the floors end the pruning; with one they miss it.
            if has_targets or must_remove:
                raise
            return False
        return True

    def _reward(self, session: PruningSession, trainer: Trainer, cycle: int) -> float:
        """Train everything under a penalty on the BN scales (3-7); returns the accuracy."""
        phase = Phase(f"cycle {cycle}, reward", self.reward_epochs, self._penalty(session))
        return trainer.train(phase, session)

    def _penalty(self, session: PruningSession) -> ScaleSparsity:
        return ScaleSparsity.from_graph(trace_channels(session.module), self.sparsity)


def _convolution_weights(module: nn.Module) -> tuple[str, ...]:
    """Return the parameters that a punishing epoch freezes."""
    names = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            names.append(f"{name}.weight")
    return tuple(names)
