"""Dynamic pruning (recipe 4): a gate chooses for each image how wide the network is that sees it.

The profiles are the network pruned further and further, so that each one's channels are among those
of the wider ones. Each has weights of its own: sharing them would save bytes, but reconstructed
weights fit one width only (docs/explanation/dynamic.md has what that is worth).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from fertool import cost
from fertool.errors import UsageError
from fertool.models.dynamic_network import HIDDEN, DynamicNetwork, ImageGate
from fertool.pruning.budget import Targets
from fertool.pruning.planning import PrunePlan
from fertool.pruning.profile_gate import set_threshold
from fertool.pruning.routing_objective import Routing
from fertool.pruning.schedule import RECOVERY, Phase, Schedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES
from fertool.spec import GateSpec, InputSpec

# Fraction of the epochs in which the mean cost falls to the target; in the others it stays there.
OPENING_FRACTION = 0.5


@SCHEDULES.register("dynamic")
@dataclass(frozen=True)
class Dynamic(Schedule):
    """Prune to several widths, of which a gate chooses one an image; budgets are means.

    The budget is the mean of the MACs. `profiles` are those of each width relative to the
    network's, by default around the budget; `sparsity` is the strength of the regularizer that
    pulls the mean cost to the budget.
    """

    reconstructs: ClassVar[bool] = True
    # A gate's mean cost is that of whole batches.
    shares_processes: ClassVar[bool] = False

    profiles: tuple[float, ...] = ()
    sparsity: float = 10.0

    def __post_init__(self) -> None:
        ratios = self.profiles
        are_ratios = all(0 < ratio <= 1 for ratio in ratios)
        if not are_ratios or len(set(ratios)) < len(ratios) or len(ratios) == 1:
            listed = ",".join(f"{ratio:g}" for ratio in ratios)
            raise UsageError(
                f"``profiles={listed}``: not two or more different ratios up to 1",
                "for example ``profiles=0.7,0.4,0.2``",
            )

    def require_budget(self, targets: Targets | None, *, has_latency: bool = False) -> None:
        """Raise UsageError where there is another budget than MACs, or none."""
        mean_macs_budget(None if has_latency else targets)

    def preview(self, session: PruningSession) -> list[PrunePlan]:
        """Return the plans of the profiles, the widest first."""
        return list(prune_to_profiles(copy.copy(session), self.profiles))

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Prune to several profiles and train them with a gate whose mean cost is the target.

        The gate's threshold is set on the images that score channels so that they cost what was
        asked.
        """
        if not self.epochs:
            raise UsageError(
                "``schedule=dynamic``: its gate has to be trained", "for example ``epochs=10``"
            )
        target = mean_macs_budget(session.constraints.targets)
        networks, plans = [], []
        for plan in prune_to_profiles(session, self.profiles):
            networks.append(copy.deepcopy(session.module))
            plans.append(plan)

        # A placeholder: the caller measures the usage after the training.
        usage = (1 / len(networks),) * len(networks)
        module = DynamicNetwork(_new_gate(len(networks)), networks, usage)
        costs = profile_costs(module, session.spec.input, session.plan.macs_before)
        graphs = tuple(network.graph for network in networks)
        gates = GateSpec(graphs, HIDDEN, module.shares)
        session.spec = replace(session.spec, graph=graphs[0], gates=gates, metrics=None)
        session.module, session.plan = module, plans[0]

        opening = round(OPENING_FRACTION * self.epochs)
        if opening:
            mean_cost = sum(costs) / len(costs)
            routing = Routing(costs, self.sparsity, start=mean_cost, end=target)
            trainer.train(Phase("opening", opening, routing=routing), session)
        if self.epochs - opening:
            routing = Routing(costs, self.sparsity, start=target, end=target)
            trainer.train(Phase(RECOVERY, self.epochs - opening, routing=routing), session)

        set_threshold(module, trainer.scoring_subset, session.spec.input, costs, target)
        # Another threshold sends images to other profiles: the measures of the training are void.
        session.spec = replace(session.spec, metrics=None)


def mean_macs_budget(targets: Targets | None) -> float:
    """Return which fraction of the MACs may remain in the mean.

    Raises UsageError where there is another budget, or none.
    """
    # Of several targets only that of the MACs is a mean over profiles.
    if targets is None or targets.macs is None or targets != Targets(macs=targets.macs):
        raise UsageError(
            "``schedule=dynamic``: its budget is the mean of the multiply-accumulates",
            "give ``target_flops`` alone",
        )
    return targets.macs


def _new_gate(profiles: int) -> ImageGate:
    """Return a gate with weights that depend on nothing else, which has no preference yet."""
    gate = ImageGate(profiles)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (gate.fc1, gate.fc2):
            layer.reset_parameters()
    nn.init.zeros_(gate.fc2.weight)
    return gate


def prune_to_profiles(session: PruningSession, ratios: Sequence[float]) -> Iterator[PrunePlan]:
    """Prune to each of these fractions of the MACs, the widest first; yields the plan of each.

    Without `ratios` they are those that suit the budget. Raises UsageError where the budget is not
    between them.
    """
    target = mean_macs_budget(session.constraints.targets)
    ratios = ratios or default_profiles(target)
    if not min(ratios) <= target <= max(ratios):
        listed = ", ".join(f"{ratio:g}" for ratio in ratios)
        raise UsageError(
            f"``target_flops={target:g}``: not between the profiles, {listed}",
            "give ``profiles`` on both sides of it",
        )
    for ratio in sorted(ratios, reverse=True):
        present = session.plan.macs_ratio
        if ratio < present:
            session.apply(session.plan_step(Targets(macs=ratio / present)))
        yield session.plan


def default_profiles(target: float) -> tuple[float, ...]:
    """Return the MACs of the profiles for a mean of `target`: more (0.9 at most), equal, half."""
    # The widest and the narrowest cost about two targets: an image on each is within the budget.
    profiles = (min(0.9, 1.6 * target), target, target / 2)
    # A target above 0.9 would be there twice.
    return tuple(dict.fromkeys(profiles))


def profile_costs(
    module: DynamicNetwork, input: InputSpec, unpruned_macs: int
) -> tuple[float, ...]:
    """Return the MACs of an image by profile, the gate's included, relative to the unpruned."""
    gate = cost.count(module.gate, input).macs
    costs = []
    for network in module.networks:
        costs.append((gate + cost.count(network, input).macs) / unpruned_macs)
    return tuple(costs)
