from itertools import pairwise

import pytest
import torch
from torch import nn

from fertool import cost
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, open_data
from fertool.errors import UsageError
from fertool.models import create
from fertool.models.cascade_network import CascadeNetwork
from fertool.models.dynamic_network import DynamicNetwork
from fertool.objective import Supervised
from fertool.pruning import (
    Constraints,
    ProfilesObjective,
    PruningSession,
    RoutedObjective,
    Targets,
    cascade_profiles,
    load_schedule,
    measure_profile_usage,
    profile_logits,
    profile_margins,
    set_cascade_threshold,
)
from fertool.pruning.profile_gate import set_threshold
from fertool.pruning.routing_objective import Routing
from fertool.pruning.schedules.dynamic import default_profiles, profile_costs
from fertool.spec import InputSpec

INPUT = InputSpec(size=32)


@pytest.fixture(scope="module")
def faces():
    return open_data("synth:350", DataOptions(size=32)).split("train")


@pytest.fixture
def net():
    def make(targets=Targets(macs=0.5)):
        torch.manual_seed(0)
        spec, module = create(
            "micro_expnet", {"width_mult": 0.25}, INPUT, ("angry", "happy", "sad")
        )
        return PruningSession(
            spec, module.eval(), Constraints(targets), SelectionConfig(criterion="l1", round_to=1)
        )

    return make


class Trainer:
    """A trainer that notes what it is asked for."""

    def __init__(self, faces):
        self.scoring_subset = self.validation_images = faces
        self.phases = []

    def train(self, phase, session):
        self.phases.append(phase)
        return 0.0


class Gate(nn.Module):
    def __init__(self, profiles):
        super().__init__()
        self.fc2 = nn.Linear(1, profiles)

    def forward(self, x):
        return self.fc2(x.mean((1, 2, 3))[:, None])


class Constant(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def test_profiles_are_nested_and_the_trainings_close_in_on_the_budget(net, faces):
    shrinking = net()
    whole = cost.count(shrinking.module, INPUT).macs
    trainer = Trainer(faces)
    load_schedule("dynamic", 4).run(shrinking, trainer)
    phases = trainer.phases
    assert [(phase.name, phase.epochs) for phase in phases] == [("opening", 2), ("recovery", 2)]
    first, last = (phase.routing for phase in phases)
    assert first.start > first.end == last.start == last.end == 0.5
    profiles = shrinking.spec.gates.profiles
    for wider, narrower in pairwise(profiles):
        assert wider.channels.keys() == narrower.channels.keys()
        assert all(narrower.channels[key] <= width for key, width in wider.channels.items())
    costs = [cost.count(network, INPUT).macs / whole for network in shrinking.module.networks]
    assert all(
        0.9 * wanted <= there <= wanted
        for there, wanted in zip(costs, default_profiles(0.5), strict=True)
    )
    assert profile_costs(shrinking.module, INPUT, whole) == pytest.approx(
        [each + cost.count(shrinking.module.gate, INPUT).macs / whole for each in costs]
    )


@pytest.mark.parametrize("target", [0.3, 0.5, 0.7])
def test_the_threshold_meets_the_mean_budget(net, faces, target):
    torch.manual_seed(0)
    module = DynamicNetwork(Gate(3), [Constant([0.0, 0, 0]) for _ in range(3)], (1.0, 0, 0)).eval()
    costs = (0.8, 0.5, 0.25)
    set_threshold(module, faces, INPUT, costs, target)
    shares = measure_profile_usage(module, faces, INPUT)
    spent = sum(share * each for share, each in zip(shares, costs, strict=True))
    assert target - 0.02 <= spent <= target


def test_the_loss_is_each_profiles_and_the_chosen_ones_and_the_budgets():
    networks = [Constant([2.0, 0.0]), Constant([0.0, 1.0])]
    gate = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        gate[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    module = DynamicNetwork(gate, networks, (0.5, 0.5))
    inputs = torch.zeros(2, 1, 2, 2)
    inputs[:, 0, 0, 0] = torch.tensor([3.0, -1.0])
    targets = torch.eye(2)
    objective = RoutedObjective(Supervised(), Routing((0.9, 0.3), 5.0, 0.8, 0.4), 3)
    objective.plan_epoch(2, targets)
    loss = objective(module, inputs, targets)
    soft = torch.tensor([[3.0, 0.0], [-1.0, 0.0]]).softmax(1)
    alone = [nn.functional.cross_entropy(n.logits.detach().expand(2, 2), targets) for n in networks]
    chosen = nn.functional.cross_entropy(
        torch.stack([n.logits.detach() for n in networks]), targets
    )
    budget = ((soft @ torch.tensor([0.9, 0.3])).mean() - 0.6) ** 2
    torch.testing.assert_close(loss, sum(alone) / 2 + chosen + 5 * budget)
    loss.backward()
    assert gate[1].weight.grad.abs().sum() > 0


def test_a_budget_of_something_else_is_refused(net, faces):
    for targets in (None, Targets(params=0.5), Targets(macs=0.5, params=0.5)):
        with pytest.raises(UsageError, match="mean of the multiply"):
            load_schedule("dynamic", 1).run(net(targets), Trainer(faces))
    with pytest.raises(UsageError, match="not between the profiles"):
        load_schedule("dynamic", 1, profiles=(0.4, 0.2)).run(net(), Trainer(faces))


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_the_margin_of_a_cascade_meets_the_mean_budget(faces, target):
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 3)) for _ in range(3)]
    module = CascadeNetwork(networks, (0.0, 0.0), (1 / 3,) * 3).eval()
    costs = (0.9, 0.4, 0.2)
    set_cascade_threshold(module, faces, INPUT, costs, target)
    assert len(set(module.thresholds)) == 1
    shares = measure_profile_usage(module, faces, INPUT)
    spent = sum(share * each for share, each in zip(shares, costs, strict=True))
    assert target - 0.02 <= spent <= target
    answers = profile_logits(module, faces, INPUT)
    chosen = cascade_profiles(profile_margins(answers), module.thresholds)
    counts = torch.bincount(chosen, minlength=3) / len(chosen)
    assert counts.tolist() == pytest.approx(shares)


def test_a_cascade_has_two_profiles_that_cost_the_budget_and_no_gate(net, faces):
    shrinking = net()
    trainer = Trainer(faces)
    load_schedule("dynamic", 3, gate="cascade").run(shrinking, trainer)
    assert [(phase.name, phase.epochs) for phase in trainer.phases] == [("recovery", 3)]
    assert trainer.phases[0].routing is None
    gates = shrinking.spec.gates
    assert gates.kind == "cascade"
    assert gates.thresholds == shrinking.module.thresholds
    shares = measure_profile_usage(shrinking.module, faces, INPUT)
    macs = cost.profile_macs(shrinking.module, INPUT)
    spent = sum(share * each for share, each in zip(shares, macs, strict=True))
    assert 0.47 <= spent / shrinking.plan.macs_before <= 0.5


def test_every_profile_of_a_cascade_learns_from_every_image():
    networks = [Constant([2.0, 0.0]), Constant([0.0, 1.0])]
    module = CascadeNetwork(networks, (0.5,), (0.5, 0.5))
    targets = torch.eye(2)
    loss = ProfilesObjective(Supervised())(module, torch.zeros(2, 1, 2, 2), targets)
    alone = [nn.functional.cross_entropy(n.logits.detach().expand(2, 2), targets) for n in networks]
    torch.testing.assert_close(loss, sum(alone) / 2)
    loss.backward()
    assert all(network.logits.grad.abs().sum() > 0 for network in networks)


def test_a_cascade_may_cost_as_much_as_all_its_profiles(net, faces):
    assert default_profiles(0.5, "cascade") == (0.8, 0.25)
    shrinking = net()
    schedule = load_schedule("dynamic", 0, gate="cascade", profiles=(0.4, 0.2))
    schedule.run(shrinking, Trainer(faces))
    assert len(shrinking.module.networks) == 2
    with pytest.raises(UsageError, match="not between the profiles"):
        load_schedule("dynamic", 0, gate="cascade", profiles=(0.2, 0.1)).run(net(), Trainer(faces))
