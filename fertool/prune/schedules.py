"""In which order channels go and the network trains; the training itself is the caller's.

A schedule shrinks one network, step by step, and asks for trainings in between. All share scores, planning and surgery
with pruning in one shot.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from fertool.errors import FertoolError, UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.network import Network
from fertool.prune.block_removal import remove_block
from fertool.prune.budget import Targets, UnreachableError
from fertool.prune.criteria import Scores
from fertool.prune.penalties import GrowingPenalty, Penalty, ScaleSparsity
from fertool.prune.planning import PrunePlan, channel_counts
from fertool.prune.pruning_step import DATA_FREE, Cut, PruneOptions, make_cut, plan, score_channels
from fertool.prune.routing_objective import Routing
from fertool.prune.width_candidates import least_width
from fertool.spec import Spec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

RECOVERY = "recovery"
PRECISION = 0.02
"""How near the judge's budget is found, as a part of the MACs."""

OnProgress = Callable[[int, int], None]
"""Told how many images of how many have been scored."""


@dataclass(frozen=True)
class Phase:
    """A training that a schedule asks for.

    `few` trains on the balanced subset that also scores the channels, `frozen` are parameters that stay as they are;
    a `few` phase is short, and need not be taken up again where a run was killed. `routing` teaches a gate too. A phase
    that `leads` somewhere ends with its last epoch, not the best.
    """

    name: str
    epochs: int
    penalty: Penalty | None = None
    few: bool = False
    frozen: tuple[str, ...] = ()
    routing: Routing | None = None
    leads: bool = False


@dataclass(frozen=True)
class ScheduleOptions:
    """How a schedule proceeds; `epochs` are those of the last training, which recovers what was lost.

    one-shot: `steps` cuts with nothing between them but the repair of the layers. iterative: the same with
    `step_epochs` between them. slimming and greg: `sparse_epochs` under a penalty of `sparsity`. prj: cycles of
    `punish_epochs`, each removing the share `punish_share` of the channels, and `reward_epochs`; a cycle that lost
    more than `max_drop` (a share of the validation images) is taken back. In one shot `max_drop` can take the place of
    a budget. dynamic: `profiles` of these MACs, relative to the network's, where there are some, and a regulariser of
    `sparsity`.
    """

    epochs: int
    steps: int = 1
    step_epochs: int = 1
    sparse_epochs: int = 5
    sparsity: float = 1e-4
    punish_epochs: int = 10
    punish_share: float = 0.002
    reward_epochs: int = 2
    max_drop: float = 0.01
    profiles: tuple[float, ...] = ()


class Shrinking:
    """A network on its way down; `plan` leads from where it began, which is `start`, to where it is."""

    def __init__(
        self,
        spec: Spec,
        module: Network,
        options: PruneOptions,
        data: FaceDataset | None = None,
        watch: Callable[[str], AbstractContextManager[OnProgress | None]] = lambda work: (
            nullcontext()
        ),
    ) -> None:
        # Of what the network was, not of what a cut has left of it.
        graph = trace_channels(module)
        widths = channel_counts(find_groups(graph))
        floors = {
            name: max(least_width(width), options.floors.get(name, 0))
            for name, width in widths.items()
        }
        self.spec, self.options = spec, replace(options, floors=floors)
        self.module: Any = module
        self.plan = PrunePlan.to_stay(graph, options.clock)
        self._data, self._watch = data, watch
        self._kept = tuple(name for name, floor in options.floors.items() if floor)
        self.start = copy.copy(self)

    def way_to(self, share: float = 1.0) -> Targets | None:
        """Return what of the present network stays after this share of the whole way to the targets, in equal ratios.

        None when it is there already, and without targets.
        """
        asked, done = self.options.targets, self.plan
        if asked is None:
            return None
        ratios = (done.macs_ratio, done.params_ratio, done.stored_ratio, done.seconds_ratio)
        rest = [
            None if wanted is None or wanted**share >= there else wanted**share / there
            for wanted, there in zip(asked.ratios, ratios, strict=False)
        ]
        return None if all(ratio is None for ratio in rest) else Targets(*rest)

    def preview(self, steps: int = 1) -> PrunePlan | None:
        """Return the plan that `descend` would leave, None if there is nothing to do; the network is not changed."""
        trial = copy.copy(self)
        trial._descend_by(step / steps for step in range(1, steps))
        targets = trial.way_to()
        if targets is None:
            return None if trial.plan is self.start.plan else trial.plan
        return trial.plan.then(trial.cut(targets).plan)

    def require_reachable(self) -> None:
        """Raise FertoolError for a budget that cannot be met, whatever the channels score; quick, needs no images."""
        if targets := self.way_to():
            plan(
                self.spec,
                self.module,
                replace(self.options, targets=targets, criterion=DATA_FREE, local_retrain=False),
            )

    def cut(
        self, targets: Targets, scored: tuple[ChannelGraph, Scores] | None = None, **changes: Any
    ) -> Cut:
        """Choose what goes of the present network, by other options than its own where given."""
        options = replace(self.options, targets=targets, **changes)
        with nullcontext() if scored else self._watch("scores") as on_progress:
            return make_cut(
                self.spec, self.module, options, self._data, scored=scored, on_progress=on_progress
            )

    def score(self) -> tuple[ChannelGraph, Scores]:
        """Return the channels of the present network and how much each matters."""
        with self._watch("scores") as on_progress:
            return score_channels(self.spec, self.module, self.options, self._data, on_progress)

    def descend(self, steps: int = 1) -> None:
        """Go the whole way to the targets without training, in cuts of equal ratio, each scored anew."""
        self._descend_by(step / steps for step in range(1, steps + 1))

    def _descend_by(self, shares: Iterable[float]) -> None:
        for share in shares:
            if targets := self.way_to(share):
                self.take(self.cut(targets))

    def take(self, cut: Cut) -> None:
        """Become the smaller network."""
        with nullcontext() if cut.repair is None else self._watch("repair") as on_progress:
            self.module = cut.carry_out(self.module, on_progress)
        self.plan = self.plan.then(cut.plan)
        self.spec = replace(self.spec, graph=self.module.graph, metrics=None)

    def remove_blocks(self, count: int) -> None:
        """Become a network of `count` residual blocks less, one after the other; raises UsageError without images."""
        for _ in range(count):
            if self._data is None:
                raise UsageError("--prune-blocks needs images", "give --data")
            with self._watch("blocks") as on_progress:
                shallower = remove_block(
                    *(self.spec, self.module, self._data),
                    repair=self.options.local_retrain,
                    latency=self.options.clock,
                    kept=self._kept,
                    on_progress=on_progress,
                )
            self.spec, self.module = shallower.spec, shallower.module
            self.plan = self.plan.then(shallower.plan)


Train = Callable[[Phase, Shrinking], float]
"""Trains the network of the second in place to its best epoch, or the last; returns its accuracy on validation."""


def one_shot(net: Shrinking, options: ScheduleOptions, train: Train) -> None:
    """Score, remove, recover."""
    net.descend(options.steps)
    _recover(net, options, train)


def judged(
    net: Shrinking, options: ScheduleOptions, train: Train, judge: Callable[[Shrinking], float]
) -> None:
    """Remove in one step as much as loses no more than `max_drop` before the recovery, found by halving; recover.

    Raises FertoolError when even the smallest cut loses more.
    """
    wanted, low, high = judge(net.start) - options.max_drop, 0.0, 1.0
    best: float | None = None
    scored = net.score()
    while high - low > PRECISION:
        middle = (low + high) / 2
        trial = copy.copy(net)
        try:
            cut = net.cut(Targets(macs=middle), scored)
        except UnreachableError:
            low = middle
            continue
        trial.module = cut.carry_out(net.module)
        passed = judge(trial) >= wanted
        best, low, high = (middle, low, middle) if passed else (best, middle, high)
    if best is None:
        raise FertoolError(
            f"no pruning loses less than {100 * options.max_drop:g} points",
            "raise --max-drop, or lower --round-to",
        )
    net.take(net.cut(Targets(macs=best), scored))
    _recover(net, options, train)


def iterative(net: Shrinking, options: ScheduleOptions, train: Train) -> None:
    """Remove in steps of equal ratio, coarse to fine, with a short training after each (recipe 4's progressive way)."""
    for step in range(1, options.steps + 1):
        if targets := net.way_to(step / options.steps):
            net.take(net.cut(targets))
        if step < options.steps and options.step_epochs:
            train(Phase(f"step {step}/{options.steps}", options.step_epochs), net)
    _recover(net, options, train)


def slimming(net: Shrinking, options: ScheduleOptions, train: Train) -> None:
    """Train under an L1 penalty on BN scales, then remove the smallest anywhere (Liu et al. 2017, section 3)."""
    graph = trace_channels(net.module)
    train(
        Phase(
            "sparsity", options.sparse_epochs, ScaleSparsity.of(graph, options.sparsity), leads=True
        ),
        net,
    )
    if targets := net.way_to():
        net.take(net.cut(targets, criterion="bn-gamma", normalise="none"))
    _recover(net, options, train)


def greg(net: Shrinking, options: ScheduleOptions, train: Train) -> None:
    """Choose what goes, let a growing penalty shrink it while the rest learns, remove it (Wang et al. 2021, GReg-1)."""
    if targets := net.way_to():
        cut = net.cut(targets)
        penalty = GrowingPenalty.of(net.module, cut.graph, cut.plan, options.sparsity)
        train(Phase("growing penalty", options.sparse_epochs, penalty, leads=True), net)
        net.take(cut)
    _recover(net, options, train)


def prj(
    net: Shrinking, options: ScheduleOptions, train: Train, judge: Callable[[Shrinking], float]
) -> None:
    """Punish, reward, judge (PRJ thesis, section 3.3), then recover.

    Punishing removes the least important channels, few at a time, while all but the convolutions learns on a few
    images; the reward is a training of everything under `λ Σ|γ|`. A cycle after which the network is worse by more
    than `max_drop` is taken back, and ends the loop; so does the budget. Without a budget the judge alone decides.
    Raises FertoolError when the first cycle costs too much, or when not even the smallest step can be made.
    """
    wanted, begun = judge(net.start) - options.max_drop, net.plan
    for cycle in itertools.count(1):
        before = (net.spec, copy.deepcopy(net.module), net.plan)
        for epoch in range(1, options.punish_epochs + 1):
            if _punish(net, options.punish_share, must=net.plan is begun):
                train(
                    Phase(
                        f"cycle {cycle}, punish {epoch}",
                        1,
                        few=True,
                        frozen=_convolutions(net.module),
                    ),
                    net,
                )
        if net.plan is before[2]:
            break
        penalty = ScaleSparsity.of(trace_channels(net.module), options.sparsity)
        if train(Phase(f"cycle {cycle}, reward", options.reward_epochs, penalty), net) < wanted:
            net.spec, net.module, net.plan = before
            break
    if net.plan is begun and (net.options.targets is None or net.way_to()):
        raise FertoolError(
            f"the first cycle of pruning lost more than {100 * options.max_drop:g} points",
            "raise --max-drop, or train longer with --reward-epochs",
        )
    _recover(net, options, train)


def _punish(net: Shrinking, share: float, *, must: bool) -> bool:
    """Remove this share of the channels; returns whether there was anything to remove, an error if there `must` be."""
    if net.options.targets is not None and net.way_to() is None:
        return False
    try:
        net.take(net.cut(Targets(channels=1 - share)))
    except UnreachableError:
        if net.options.targets is not None or must:
            raise
        return False
    return True


def _convolutions(module: nn.Module) -> tuple[str, ...]:
    return tuple(
        f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Conv2d)
    )


def _recover(net: Shrinking, options: ScheduleOptions, train: Train) -> None:
    if options.epochs:
        train(Phase(RECOVERY, options.epochs), net)


SCHEDULES: dict[str, Callable[[Shrinking, ScheduleOptions, Train], None]] = {
    "one-shot": one_shot,
    "iterative": iterative,
    "slimming": slimming,
    "greg": greg,
}
"""Those that need no judge; `prj` does."""
