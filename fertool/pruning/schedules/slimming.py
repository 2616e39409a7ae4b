"""Network Slimming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fertool.graph.channels import trace_channels
from fertool.pruning.penalties import ScaleSparsity
from fertool.pruning.planning import PrunePlan
from fertool.pruning.pruning_step import PruningStep
from fertool.pruning.schedule import Phase, Schedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES


@SCHEDULES.register("slimming")
@dataclass(frozen=True)
class Slimming(Schedule):
    """Train under an L1 penalty on batch-norm scales, then remove the smallest anywhere.

    Liu et al. 2017, arXiv 1708.06519, section 3. `sparsity` is the strength of the penalty.
    """

    chooses_channels: ClassVar[bool] = True

    sparse_epochs: int = 5
    sparsity: float = 1e-4

    def preview(self, session: PruningSession) -> list[PrunePlan]:
        """Return the plan for the scales as they are; the sparse training changes them."""
        self._penalty(session)
        step = self._plan(session)
        return [session.plan.then(step.plan)] if step else []

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Train, prune, recover."""
        penalty = self._penalty(session)
        phase = Phase("sparsity", self.sparse_epochs, penalty, keep_last_epoch=True)
        trainer.train(phase, session)
        if step := self._plan(session):
            session.apply(step)
        self.recover(session, trainer)

    def _penalty(self, session: PruningSession) -> ScaleSparsity:
        return ScaleSparsity.from_graph(trace_channels(session.module), self.sparsity)

    def _plan(self, session: PruningSession) -> PruningStep | None:
        """Choose the smallest scales anywhere, None where the budget is met."""
        targets = session.remaining_budget()
        if targets is None:
            return None
        return session.plan_step(targets, criterion="bn-gamma", score_normalization="none")
