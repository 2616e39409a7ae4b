"""Dynamic pruning (recipe 4): for each image is chosen how wide the network is that classifies it.

By a gate that looks at the image, or in a cascade, in which a wider profile decides where the
narrower one is not sure.

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
from fertool.config.gate import Gate
from fertool.errors import UsageError
from fertool.gate_spec import GateSpec
from fertool.graph.network import Network
from fertool.models.cascade_network import CascadeNetwork
from fertool.models.dynamic_network import HIDDEN, DynamicNetwork, ImageGate
from fertool.models.profile_network import ProfileNetwork
from fertool.pruning.budget import Targets
from fertool.pruning.planning import PrunePlan
from fertool.pruning.profile_gate import set_cascade_threshold, set_threshold
from fertool.pruning.routing_objective import Routing
from fertool.pruning.schedule import RECOVERY, Phase, Schedule, Trainer
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES
from fertool.spec import InputSpec, Spec

# Fraction of the epochs in which the mean cost falls to the target; in the others it stays there.
OPENING_FRACTION = 0.5
Costs = tuple[float, ...]
"""The MACs of an image by the profile that classifies it, relative to the unpruned network's."""


@SCHEDULES.register("dynamic")
@dataclass(frozen=True)
class Dynamic(Schedule):
    """Prune to several widths, of which one classifies each image; budgets are means.

    The budget is the mean of the MACs. `profiles` are those of each width relative to the
    network's, by default around the budget; `gate` is what chooses among them, `statistics` of the
    image or a `cascade`; `sparsity` is the strength of the regularizer that pulls the mean cost of
    a gate to the budget.
    """

    reconstructs: ClassVar[bool] = True
    # A gate's mean cost is that of whole batches.
    shares_processes: ClassVar[bool] = False

    profiles: tuple[float, ...] = ()
    gate: Gate = "statistics"
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
        return list(prune_to_profiles(copy.copy(session), self.profiles, self.gate))

    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Prune to several profiles and train them, with a gate whose mean cost is the target.

        The threshold is set so that the images cost what was asked: that of a gate on the images
        that score channels, that of a cascade on the validation images. A network is surer of the
        images that it was trained on than of others.
        """
        self._require_possible(session)
        target = mean_macs_budget(session.constraints.targets)
        networks, plans = [], []
        for plan in prune_to_profiles(session, self.profiles, self.gate):
            networks.append(copy.deepcopy(session.module))
            plans.append(plan)

        whole_macs = session.plan.macs_before
        session.spec, session.module = _assembled(session, networks, self.gate)
        session.plan = plans[0]
        costs = profile_costs(session.module, session.spec.input, whole_macs)
        if isinstance(session.module, CascadeNetwork):
            self._train_cascade(session, trainer, costs, target)
        else:
            self._train_gate(session, trainer, costs, target)
        # Another threshold sends images to other profiles: the measures of the training are void.
        session.spec = replace(session.spec, metrics=None)

    def _require_possible(self, session: PruningSession) -> None:
        # The profiles of a cascade can do with the reconstruction of their layers.
        if self.gate == "statistics" and not self.epochs:
            raise UsageError(
                "``schedule=dynamic``: its gate has to be trained",
                "for example ``epochs=10``, or ``gate=cascade``, which has no gate to train",
            )
        if self.gate == "cascade" and len(session.spec.classes) < 2:
            raise UsageError(
                "``gate=cascade``: a network of one class is always sure", "use ``gate=statistics``"
            )

    def _train_gate(
        self, session: PruningSession, trainer: Trainer, costs: Costs, target: float
    ) -> None:
        module = session.module
        assert isinstance(module, DynamicNetwork)
        opening = round(OPENING_FRACTION * self.epochs)
        if opening:
            mean_cost = sum(costs) / len(costs)
            routing = Routing(costs, self.sparsity, start=mean_cost, end=target)
            trainer.train(Phase("opening", opening, routing=routing), session)
        if self.epochs - opening:
            routing = Routing(costs, self.sparsity, start=target, end=target)
            trainer.train(Phase(RECOVERY, self.epochs - opening, routing=routing), session)
        set_threshold(module, trainer.scoring_subset, session.spec.input, costs, target)

    def _train_cascade(
        self, session: PruningSession, trainer: Trainer, costs: Costs, target: float
    ) -> None:
        module = session.module
        assert isinstance(module, CascadeNetwork)
        images, input = trainer.validation_images, session.spec.input
        # Before the training too: its best epoch is that of both profiles together.
        set_cascade_threshold(module, images, input, costs, target)
        self.recover(session, trainer)
        set_cascade_threshold(module, images, input, costs, target)
        gates = session.spec.gates
        assert gates is not None
        session.spec = replace(session.spec, gates=replace(gates, thresholds=module.thresholds))


def _assembled(
    session: PruningSession, networks: Sequence[Network], gate: Gate
) -> tuple[Spec, ProfileNetwork]:
    """Return the dynamic network of these profiles, not yet trained, and its spec."""
    # A placeholder: the caller measures the usage after the training.
    usage = (1 / len(networks),) * len(networks)
    graphs = tuple(network.graph for network in networks)
    module: ProfileNetwork
    if gate == "cascade":
        module = CascadeNetwork(networks, (0.0,) * (len(networks) - 1), usage)
        gates = GateSpec(graphs, 0, usage, thresholds=module.thresholds)
    else:
        module = DynamicNetwork(_new_gate(len(networks)), networks, usage)
        gates = GateSpec(graphs, HIDDEN, usage)
    return replace(session.spec, graph=graphs[0], gates=gates, metrics=None), module


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


def prune_to_profiles(
    session: PruningSession, ratios: Sequence[float], gate: Gate = "statistics"
) -> Iterator[PrunePlan]:
    """Prune to each of these fractions of the MACs, the widest first; yields the plan of each.

    Without `ratios` they are those that suit the budget. Raises UsageError where the budget is not
    between the least and the most that an image can cost.
    """
    target = mean_macs_budget(session.constraints.targets)
    ratios = ratios or default_profiles(target, gate)
    # In a cascade the narrower profiles have run before the widest.
    most = sum(ratios) if gate == "cascade" else max(ratios)
    if not min(ratios) <= target <= most:
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


def default_profiles(target: float, gate: Gate = "statistics") -> tuple[float, ...]:
    """Return the MACs of the profiles for a mean of `target`: more (0.9 at most), equal, half.

    A cascade has no equal one: with it there would be nothing left to spend on a wider one.
    """
    # The widest and the narrowest cost about two targets: an image on each is within the budget.
    widest, narrowest = min(0.9, 1.6 * target), target / 2
    if gate == "cascade":
        return widest, narrowest
    # A target above 0.9 would be there twice.
    return tuple(dict.fromkeys((widest, target, narrowest)))


def profile_costs(module: ProfileNetwork, input: InputSpec, unpruned_macs: int) -> Costs:
    """Return the MACs of an image by profile relative to the unpruned.

    Those of the gate are included, and of a cascade those of the narrower profiles.
    """
    macs = cost.profile_macs(module, input)
    return tuple(each / unpruned_macs for each in macs)
