"""Growing regularization."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.pruning.penalties import GrowingPenalty
from fertool.pruning.schedule import Phase, Schedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES


@SCHEDULES.register("greg")
@dataclass(frozen=True)
class GrowingRegularization(Schedule):
    """Choose channels, let a growing penalty shrink them while the rest learns, remove them.

    Wang et al. 2021, arXiv 2012.09243, GReg-1. `sparsity` is what the penalty grows to.
    """

    sparse_epochs: int = 5
    sparsity: float = 1.0

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Plan, train, prune, recover."""
        if targets := session.remaining_budget():
            step = session.plan_step(targets)
            penalty = GrowingPenalty.from_plan(session.module, step.graph, step.plan, self.sparsity)
            phase = Phase("growing penalty", self.sparse_epochs, penalty, keep_last_epoch=True)
            trainer.train(phase, session)
            session.apply(step)
        self.recover(session, trainer)
