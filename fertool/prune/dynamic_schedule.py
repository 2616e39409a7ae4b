"""Dynamic pruning (recipe 4): a gate chooses for each image how wide the network is that sees it.

The profiles are the network pruned further and further, so that each one's channels are among those
of the wider ones. Each has weights of its own: sharing them would save bytes, but reconstructed
weights fit one width only (docs/explanation/dynamic.md has what that is worth).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.inference import eval_mode
from fertool.models.dynamic_network import HIDDEN, DynamicNetwork, ImageGate
from fertool.prune.budget import Targets
from fertool.prune.planning import PrunePlan
from fertool.prune.routing_objective import Routing
from fertool.prune.schedules import RECOVERY, Phase, ScheduleOptions, Train
from fertool.prune.session import PruningSession
from fertool.spec import GateSpec, InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

# Fraction of the trainings in which the mean cost falls to the target.
OPENING = 0.5
_BATCH = 256
# Halvings of the interval of thresholds: float64 resolves no more.
_BISECTIONS = 60
_LARGEST_THRESHOLD = 1e6


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


def dynamic(
    session: PruningSession, options: ScheduleOptions, train: Train, calibration: FaceDataset
) -> None:
    """Prune to several profiles and train them with a gate whose mean cost is the target.

    The gate's threshold is set on the `calibration` images so that they cost what was asked. Raises
    UsageError where the budget is not one of MACs.
    """
    target = mean_macs_budget(session.options.targets)
    networks, plans = [], []
    for plan in prune_to_profiles(session, options.profiles):
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

    opening = round(OPENING * options.epochs)
    if opening:
        mean_cost = sum(costs) / len(costs)
        routing = Routing(costs, options.sparsity, start=mean_cost, end=target)
        train(Phase("opening", opening, routing=routing), session)
    if options.epochs - opening:
        routing = Routing(costs, options.sparsity, start=target, end=target)
        train(Phase(RECOVERY, options.epochs - opening, routing=routing), session)

    set_threshold(module, calibration, session.spec.input, costs, target)
    # Another threshold sends images to other profiles: the measures of the training are void.
    session.spec = replace(session.spec, metrics=None)


def _new_gate(profiles: int) -> ImageGate:
    """Return a gate with weights that depend on nothing else, which has no preference yet."""
    gate = ImageGate(profiles)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (gate.fc1, gate.fc2):
            layer.reset_parameters()
    nn.init.zeros_(gate.fc2.weight)
    return gate


def preview_profiles(session: PruningSession, ratios: Sequence[float]) -> list[PrunePlan]:
    """Return the plans of the profiles; the network is not changed.

    Raises as `prune_to_profiles` does.
    """
    return list(prune_to_profiles(copy.copy(session), ratios))


def prune_to_profiles(session: PruningSession, ratios: Sequence[float]) -> Iterator[PrunePlan]:
    """Prune to each of these fractions of the MACs, the widest first; yields the plan of each.

    Without `ratios` they are those that suit the budget. Raises UsageError where the budget is not
    between them.
    """
    target = mean_macs_budget(session.options.targets)
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


@torch.no_grad()
def set_threshold(
    module: DynamicNetwork,
    images: FaceDataset,
    input: InputSpec,
    costs: tuple[float, ...],
    target: float,
) -> None:
    """Shift the gate's logits by `-t cost`, with t such that the mean cost is at most `target`.

    t is the smallest, to within rounding, so that the images cost `target` or just less.
    """
    logits = _run_in_batches(module, module.gate, images, input)
    cost_of_profile = torch.tensor(costs)

    def mean_cost(threshold: float) -> float:
        choices = (logits - threshold * cost_of_profile).argmax(1)
        return float(cost_of_profile[choices].mean())

    low, high = -1.0, 1.0
    while mean_cost(low) < target and low > -_LARGEST_THRESHOLD:
        low *= 2
    while mean_cost(high) > target and high < _LARGEST_THRESHOLD:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if mean_cost(middle) > target:
            low = middle
        else:
            high = middle

    bias = module.gate.get_submodule("fc2").get_parameter("bias")
    # In the bias, so that files and runtimes know nothing of a threshold.
    bias.sub_(high * cost_of_profile.to(bias))


def _run_in_batches(
    module: DynamicNetwork,
    compute: Callable[[Tensor], Tensor],
    images: FaceDataset,
    input: InputSpec,
) -> Tensor:
    """Return what a part of the network computes on all images, in inference mode."""
    results = []
    with eval_mode(module):
        for batch in torch.split(images.images, _BATCH):
            results.append(compute(to_input(batch, input)))
    return torch.cat(results)


@torch.no_grad()
def measure_profile_usage(
    module: DynamicNetwork, images: FaceDataset, input: InputSpec
) -> tuple[float, ...]:
    """Return the fraction of the images that each profile gets."""
    choices = _run_in_batches(module, module.choose, images, input)
    counts = torch.bincount(choices, minlength=len(module.networks))
    return tuple((counts / len(choices)).tolist())
