"""A network while it is pruned step by step, without the trainings between the steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fertool.config.pruning import DATA_FREE_CRITERION, SelectionConfig
from fertool.errors import UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.pruning.block_removal import remove_block
from fertool.pruning.budget import Targets
from fertool.pruning.criterion import Scores
from fertool.pruning.latency_model import LatencyModel
from fertool.pruning.planning import PrunePlan, channel_counts
from fertool.pruning.pruning_step import (
    Constraints,
    PruningStep,
    plan,
    plan_step,
    score_channels,
)
from fertool.pruning.width_candidates import least_width
from fertool.spec import Spec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

OnProgress = Callable[[int, int], None]
"""Receives how many of how many images, layers or blocks are done."""
OpenProgress = Callable[[str], AbstractContextManager[OnProgress | None]]
"""Opens the report on one kind of work, such as "scores"."""


def _no_progress(work: str) -> AbstractContextManager[OnProgress | None]:
    return nullcontext()


class PruningSession:
    """A network on its way to a budget.

    `plan` leads from the network as given, which is in `start`, to the present `module`.
    """

    def __init__(
        self,
        spec: Spec,
        module: Network,
        constraints: Constraints,
        selection: SelectionConfig = SelectionConfig(),
        data: FaceDataset | None = None,
        open_progress: OpenProgress = _no_progress,
    ) -> None:
        # The common floors are fractions of the first widths: those of later steps are smaller.
        graph = trace_channels(module)
        floors, kept = {}, []
        for name, width in channel_counts(find_groups(graph)).items():
            asked = constraints.floors.get(name, 0)
            floors[name] = max(least_width(width), asked)
            if asked:
                kept.append(name)
        self.spec = spec
        self.constraints = replace(constraints, floors=floors)
        self.selection = selection.resolved(has_images=data is not None)
        self.module: Any = module
        self.plan = PrunePlan.unchanged(graph, self._planning_latency)
        self._data = data
        self._open_progress = open_progress
        self._kept = tuple(kept)
        self.start = copy.copy(self)

    @property
    def _planning_latency(self) -> LatencyModel:
        """The latency model by which widths are chosen."""
        return self.constraints.latency.for_rounding(self.selection.channel_multiple)

    def remaining_budget(self, fraction: float = 1.0) -> Targets | None:
        """Return the targets of the present network after a fraction of the whole way.

        The way leads from the network as given to its targets in steps of equal ratio. None where
        the present network is that far already, and without targets.
        """
        asked = self.constraints.targets
        if asked is None:
            return None
        done = self.plan
        reached = (done.macs_ratio, done.params_ratio, done.stored_ratio, done.seconds_ratio)
        remaining: list[float | None] = []
        # Not strict: no session has a budget of channels.
        for target, ratio in zip(asked.ratios, reached, strict=False):
            if target is None or target**fraction >= ratio:
                remaining.append(None)
            else:
                remaining.append(target**fraction / ratio)
        if remaining == [None] * len(remaining):
            return None
        macs, params, size, latency = remaining
        return Targets(macs=macs, params=params, size=size, latency=latency)

    def preview(self, steps: int = 1) -> PrunePlan | None:
        """Return the plan that `prune_in_steps` would leave, None if there is nothing to do.

        The network is not changed.
        """
        trial = copy.copy(self)
        for step in range(1, steps):
            trial.prune_by(step / steps)
        targets = trial.remaining_budget()
        if targets is None:
            return None if trial.plan is self.start.plan else trial.plan
        # The last step is planned, not applied: nobody needs its weights.
        return trial.plan.then(trial.plan_step(targets).plan)

    def require_reachable(self) -> None:
        """Raise FertoolError for a budget that no scores could meet; quick, needs no images."""
        targets = self.remaining_budget()
        if targets is None:
            return
        constraints = replace(self.constraints, targets=targets)
        selection = replace(self.selection, criterion=DATA_FREE_CRITERION, reconstruct=False)
        plan(self.spec, self.module, constraints, selection)

    def plan_step(
        self, targets: Targets, scored: tuple[ChannelGraph, Scores] | None = None, **changes: Any
    ) -> PruningStep:
        """Choose what to remove from the present network.

        `changes` are options of the selection that differ from the session's.
        """
        constraints = replace(self.constraints, targets=targets)
        selection = replace(self.selection, **changes)
        with nullcontext() if scored else self._open_progress("scores") as on_progress:
            return plan_step(
                self.spec,
                self.module,
                constraints,
                selection,
                self._data,
                scored=scored,
                on_progress=on_progress,
            )

    def score(self) -> tuple[ChannelGraph, Scores]:
        """Return the channels of the present network and their importance."""
        with self._open_progress("scores") as on_progress:
            return score_channels(self.spec, self.module, self.selection, self._data, on_progress)

    def prune_in_steps(self, steps: int = 1) -> None:
        """Prune to the targets without training, in steps of equal ratio, each scored anew."""
        for step in range(1, steps + 1):
            self.prune_by(step / steps)

    def prune_by(self, fraction: float) -> None:
        """Prune a fraction of the whole way to the targets, in one step without training."""
        if targets := self.remaining_budget(fraction):
            self.apply(self.plan_step(targets))

    def apply(self, step: PruningStep) -> None:
        """Replace the network by the smaller one of a step."""
        reconstructs = step.reconstruction_images is not None
        with (
            self._open_progress("reconstruction") if reconstructs else nullcontext() as on_progress
        ):
            self.module = step.apply(self.module, on_progress)
        self.plan = self.plan.then(step.plan)
        self.spec = replace(self.spec, graph=self.module.graph, metrics=None)

    def remove_blocks(self, count: int) -> None:
        """Remove `count` residual blocks, one after the other; raises UsageError without images."""
        for _ in range(count):
            if self._data is None:
                raise UsageError("``prune_blocks`` needs images", "give ``data``")
            with self._open_progress("blocks") as on_progress:
                removal = remove_block(
                    self.spec,
                    self.module,
                    self._data,
                    reconstruct_layers=bool(self.selection.reconstruct),
                    latency=self._planning_latency,
                    kept=self._kept,
                    on_progress=on_progress,
                )
            self.spec, self.module = removal.spec, removal.module
            self.plan = self.plan.then(removal.plan)
