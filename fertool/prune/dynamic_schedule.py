"""Dynamic pruning (recipe 4): an image's own statistics choose how wide the network is that looks at it.

The profiles are the network pruned further and further, so that each one's channels are among those of the wider ones.
Each has weights of its own: sharing them would save bytes, but repaired weights fit one width only (what that is worth
stands in docs/methods.md).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from fertool import cost
from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.models.dynamic import HIDDEN, DynamicNetwork, ImageGate
from fertool.modes import eval_mode
from fertool.prune.budget import Targets
from fertool.prune.planning import PrunePlan
from fertool.prune.routing_objective import Routing
from fertool.prune.schedules import RECOVERY, Phase, ScheduleOptions, Shrinking, Train
from fertool.spec import GateSpec, InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

OPENING = 0.5
"""Part of the trainings in which the budget closes in on the target."""
_BATCH = 256


def mean_budget(targets: Targets | None) -> float:
    """Return what part of the MACs may remain in the mean; raises UsageError where that is not the budget."""
    if (
        targets is None
        or targets.macs is None
        or len([r for r in targets.ratios if r is not None]) > 1
    ):
        raise UsageError(
            "--schedule dynamic: its budget is the mean of the multiply-accumulates",
            "give --target-flops alone",
        )
    return targets.macs


def dynamic(
    net: Shrinking, options: ScheduleOptions, train: Train, calibration: FaceDataset
) -> None:
    """Prune in steps, keep what stands at each, and train them with a gate whose mean cost is the target.

    The gate's threshold is set on the `calibration` images so that they cost what was asked. Raises UsageError where
    the budget is not one of MACs.
    """
    target = mean_budget(net.options.targets)
    networks, plans = [], []
    for plan in descend_by_profiles(net, options.profiles):
        networks.append(copy.deepcopy(net.module))
        plans.append(plan)
    gate = ImageGate(len(networks))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for layer in (gate.fc1, gate.fc2):
            layer.reset_parameters()
    nn.init.zeros_(gate.fc2.weight)
    module = DynamicNetwork(gate, networks, (1 / len(networks),) * len(networks))
    costs = profile_costs(module, net.spec.input, net.plan.macs_before)
    graphs = tuple(network.graph for network in networks)
    net.spec = replace(
        net.spec, graph=graphs[0], gates=GateSpec(graphs, HIDDEN, module.shares), metrics=None
    )
    net.module, net.plan = module, plans[0]
    opening = round(OPENING * options.epochs)
    for name, epochs, start in (
        ("opening", opening, sum(costs) / len(costs)),
        (RECOVERY, options.epochs - opening, None),
    ):
        if epochs:
            routing = Routing(costs, options.sparsity, target if start is None else start, target)
            train(Phase(name, epochs, routing=routing), net)
    set_threshold(module, calibration, net.spec.input, costs, target)
    net.spec = replace(net.spec, metrics=None)


def preview_profiles(net: Shrinking, ratios: Sequence[float]) -> list[PrunePlan]:
    """Return the plans of the profiles; the network is not changed. Raises as `descend_by_profiles` does."""
    return list(descend_by_profiles(copy.copy(net), ratios))


def descend_by_profiles(net: Shrinking, ratios: Sequence[float]) -> Iterator[PrunePlan]:
    """Shrink the network to each of these parts of its MACs, the widest first; yields the plan that led there.

    Without `ratios` they are those that suit the budget. Raises UsageError where the budget is not between them.
    """
    target = mean_budget(net.options.targets)
    ratios = ratios or default_profiles(target)
    if not min(ratios) <= target <= max(ratios):
        raise UsageError(
            f"--target-flops {target:g}: not between the profiles, {', '.join(f'{r:g}' for r in ratios)}",
            "give --profiles on both sides of it",
        )
    for ratio in sorted(ratios, reverse=True):
        now = net.plan.macs_ratio
        if ratio < now:
            net.take(net.cut(Targets(macs=ratio / now)))
        yield net.plan


def default_profiles(target: float) -> tuple[float, ...]:
    """Return the MACs of the profiles for a mean of `target`: some more (0.9 at most), the same, and half."""
    return tuple(dict.fromkeys((min(0.9, 1.6 * target), target, target / 2)))


def profile_costs(module: DynamicNetwork, input: InputSpec, whole: int) -> tuple[float, ...]:
    """Return the MACs of an image by profile, the gate's included, relative to `whole`."""
    gate = cost.count(module.gate, input).macs
    return tuple((gate + cost.count(network, input).macs) / whole for network in module.networks)


@torch.no_grad()
def set_threshold(
    module: DynamicNetwork,
    images: FaceDataset,
    input: InputSpec,
    costs: tuple[float, ...],
    target: float,
) -> None:
    """Shift the gate's logits by `-t cost`, t the one at which the images cost `target` on average or just less."""
    last = module.gate.get_submodule("fc2")
    with eval_mode(module):
        logits = torch.cat(
            [module.gate(to_input(batch, input)) for batch in torch.split(images.images, _BATCH)]
        )
    prices = torch.tensor(costs)

    def mean_cost(t: float) -> float:
        return float(prices[(logits - t * prices).argmax(1)].mean())

    low, high = -1.0, 1.0
    while mean_cost(low) < target and low > -1e6:
        low *= 2
    while mean_cost(high) > target and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_cost(middle) > target else (low, middle)
    bias = last.get_parameter("bias")
    bias.sub_(high * prices.to(bias))


@torch.no_grad()
def measure_shares(
    module: DynamicNetwork, images: FaceDataset, input: InputSpec
) -> tuple[float, ...]:
    """Return the part of the images that each profile gets."""
    with eval_mode(module):
        choices = torch.cat(
            [module.choose(to_input(batch, input)) for batch in torch.split(images.images, _BATCH)]
        )
    counts = torch.bincount(choices, minlength=len(module.networks))
    return tuple((counts / len(choices)).tolist())
