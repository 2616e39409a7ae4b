"""Network Slimming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fertool.graph.channels import trace_channels
from fertool.pruning.penalties import ScaleSparsity
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

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Train, prune, recover."""
        penalty = ScaleSparsity.from_graph(trace_channels(session.module), self.sparsity)
        phase = Phase("sparsity", self.sparse_epochs, penalty, keep_last_epoch=True)
        trainer.train(phase, session)
        if targets := session.remaining_budget():
            step = session.plan_step(targets, criterion="bn-gamma", score_normalization="none")
            session.apply(step)
        self.recover(session, trainer)
