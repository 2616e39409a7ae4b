"""Schedules: in which order a network is pruned and trained; the training itself is the caller's.

A schedule prunes one network, step by step, and asks for trainings in between. All share scores,
planning and surgery with pruning in one shot.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from fertool.errors import FertoolError
from fertool.graph.channels import trace_channels
from fertool.prune.budget import Targets, UnreachableError
from fertool.prune.penalties import GrowingPenalty, Penalty, ScaleSparsity
from fertool.prune.routing_objective import Routing
from fertool.prune.session import PruningSession

RECOVERY = "recovery"
# How near the smallest passing budget is found, as a fraction of the MACs.
PRECISION = 0.02


@dataclass(frozen=True)
class Phase:
    """A training that a schedule asks for.

    `on_scoring_subset` trains on the balanced subset that also scores the channels; such a phase is
    short, and need not be resumed where a run was killed. `frozen` are parameters that stay as they
    are. `routing` trains a gate too. A phase with `keep_last_epoch` keeps its last epoch, not the
    best on validation: of a penalty it is the last that has prepared the network for pruning.
    """

    name: str
    epochs: int
    penalty: Penalty | None = None
    on_scoring_subset: bool = False
    frozen: tuple[str, ...] = ()
    routing: Routing | None = None
    keep_last_epoch: bool = False


@dataclass(frozen=True)
class ScheduleOptions:
    """How a schedule proceeds; `epochs` are those of the recovery, the training after surgery.

    one-shot: `steps` pruning steps with nothing between them but the reconstruction of the layers.
    iterative: the same with `step_epochs` between them. slimming and greg: `sparse_epochs` under a
    penalty of `sparsity`. prj: cycles of `punish_epochs`, each removing the fraction `punish_share`
    of the channels, and `reward_epochs`; a cycle that lost more than `max_drop` (a fraction of the
    validation images) is undone. In one shot `max_drop` can take the place of a budget. dynamic:
    `profiles` of these MACs, relative to the network's, if any, and a regularizer of `sparsity`.
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


Train = Callable[[Phase, PruningSession], float]
"""Trains the session's network in place to its best epoch, or the last; returns its accuracy."""
Judge = Callable[[PruningSession], float]
"""Measures the accuracy of the session's network on the validation images."""


def one_shot(session: PruningSession, options: ScheduleOptions, train: Train) -> None:
    """Score, remove, recover."""
    session.prune_in_steps(options.steps)
    _recover(session, options, train)


def prune_to_accuracy(
    session: PruningSession, options: ScheduleOptions, train: Train, judge: Judge
) -> None:
    """Remove as much as loses no more than `max_drop` before the recovery, in one step; recover.

    The smallest budget that passes is found by bisection. Raises FertoolError when even the
    smallest step loses more.
    """
    wanted = judge(session.start) - options.max_drop
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
        if judge(trial) >= wanted:
            best = high = middle
        else:
            low = middle

    if best is None:
        raise FertoolError(
            f"no pruning loses less than {100 * options.max_drop:g} points",
            "raise ``max_drop``, or lower ``round_to``",
        )
    # Planned again, since a step can be applied only once.
    session.apply(session.plan_step(Targets(macs=best), scored))
    _recover(session, options, train)


def iterative(session: PruningSession, options: ScheduleOptions, train: Train) -> None:
    """Prune in steps of equal ratio with a short training after each: recipe 4, progressive."""
    for number in range(1, options.steps + 1):
        if targets := session.remaining_budget(number / options.steps):
            session.apply(session.plan_step(targets))
        # The recovery follows the last step.
        if number < options.steps and options.step_epochs:
            train(Phase(f"step {number}/{options.steps}", options.step_epochs), session)
    _recover(session, options, train)


def slimming(session: PruningSession, options: ScheduleOptions, train: Train) -> None:
    """Train under an L1 penalty on BN scales, then remove the smallest anywhere.

    Liu et al. 2017, arXiv 1708.06519, section 3.
    """
    penalty = ScaleSparsity.from_graph(trace_channels(session.module), options.sparsity)
    train(Phase("sparsity", options.sparse_epochs, penalty, keep_last_epoch=True), session)
    if targets := session.remaining_budget():
        session.apply(session.plan_step(targets, criterion="bn-gamma", normalise="none"))
    _recover(session, options, train)


def greg(session: PruningSession, options: ScheduleOptions, train: Train) -> None:
    """Choose channels, let a growing penalty shrink them while the rest learns, remove them.

    Wang et al. 2021, arXiv 2012.09243, GReg-1.
    """
    if targets := session.remaining_budget():
        step = session.plan_step(targets)
        penalty = GrowingPenalty.from_plan(session.module, step.graph, step.plan, options.sparsity)
        phase = Phase("growing penalty", options.sparse_epochs, penalty, keep_last_epoch=True)
        train(phase, session)
        session.apply(step)
    _recover(session, options, train)


def prj(session: PruningSession, options: ScheduleOptions, train: Train, judge: Judge) -> None:
    """Punish, reward, judge (PRJ thesis, section 3.3), then recover.

    Punishing removes the least important channels, few at a time, while all but the convolutions
    learns on a few images; the reward is a training of everything under `λ Σ|γ|`. A cycle after
    which the network is worse by more than `max_drop` is undone, and ends the loop; so does the
    budget. Without a budget the judge alone decides. Raises FertoolError when the first cycle loses
    too much, or when not even the smallest step can be made.
    """
    wanted = judge(session.start) - options.max_drop
    first_plan = session.plan
    for cycle in itertools.count(1):
        # The reward trains in place: an undone cycle needs the weights of before.
        before = (session.spec, copy.deepcopy(session.module), session.plan)
        _punish_cycle(session, options, train, cycle, must_remove=session.plan is first_plan)
        if session.plan is before[2]:
            break
        accuracy = _reward(session, options, train, cycle)
        if accuracy < wanted:
            session.spec, session.module, session.plan = before
            break

    has_targets = session.options.targets is not None
    if session.plan is first_plan and (not has_targets or session.remaining_budget()):
        raise FertoolError(
            f"the first cycle of pruning lost more than {100 * options.max_drop:g} points",
            "raise ``max_drop``, or train longer with ``reward_epochs``",
        )
    _recover(session, options, train)


def _punish_cycle(
    session: PruningSession,
    options: ScheduleOptions,
    train: Train,
    cycle: int,
    *,
    must_remove: bool,
) -> None:
    """Remove channels `punish_epochs` times, each time with an epoch on the scoring images.

    `must_remove`: a first step that can remove nothing is an error.
    """
    first_plan = session.plan
    for epoch in range(1, options.punish_epochs + 1):
        nothing_yet = must_remove and session.plan is first_plan
        if not _punish(session, options.punish_share, must_remove=nothing_yet):
            continue
        phase = Phase(
            f"cycle {cycle}, punish {epoch}",
            epochs=1,
            on_scoring_subset=True,
            frozen=_convolution_weights(session.module),
        )
        train(phase, session)


def _punish(session: PruningSession, fraction: float, *, must_remove: bool) -> bool:
    """Remove a fraction of the channels; returns whether there was anything to remove."""
    has_targets = session.options.targets is not None
    if has_targets and session.remaining_budget() is None:
        return False
    try:
        session.apply(session.plan_step(Targets(channels=1 - fraction)))
    except UnreachableError:
        # Without a budget the floors end the pruning; with one they miss it.
        if has_targets or must_remove:
            raise
        return False
    return True


def _reward(session: PruningSession, options: ScheduleOptions, train: Train, cycle: int) -> float:
    """Train everything under a penalty on the BN scales; returns the accuracy on validation."""
    penalty = ScaleSparsity.from_graph(trace_channels(session.module), options.sparsity)
    return train(Phase(f"cycle {cycle}, reward", options.reward_epochs, penalty), session)


def _convolution_weights(module: nn.Module) -> tuple[str, ...]:
    names = []
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            names.append(f"{name}.weight")
    return tuple(names)


def _recover(session: PruningSession, options: ScheduleOptions, train: Train) -> None:
    if options.epochs:
        train(Phase(RECOVERY, options.epochs), session)


# Those that need no judge; `prj` does.
SCHEDULES: Mapping[str, Callable[[PruningSession, ScheduleOptions, Train], None]] = {
    "one-shot": one_shot,
    "iterative": iterative,
    "slimming": slimming,
    "greg": greg,
}
