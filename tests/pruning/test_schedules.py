"""Schedules with trainings that are only noted down, or play a given accuracy."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from fertool.config.pruning import SelectionConfig
from fertool.cost import count
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError
from fertool.graph.channels import trace_channels
from fertool.graph.folding import fold_for_inference
from fertool.graph.groups import find_groups
from fertool.models import create
from fertool.pruning import (
    Constraints,
    PruningSession,
    Targets,
    UnreachableError,
    channel_counts,
    load_schedule,
)
from fertool.pruning.penalties import GrowingPenalty, ScaleSparsity
from fertool.registry import SCHEDULES
from fertool.spec import InputSpec

INPUT = InputSpec(size=32)


@pytest.fixture(scope="module")
def shown():
    return open_data("synth:140", DataOptions(size=32)).split("train").subset(torch.arange(32))


@pytest.fixture
def net(randomise_norms):
    """Make a network on its way to half its MACs."""

    def make(targets=Targets(macs=0.5), round_to=1, data=None, **options):
        torch.manual_seed(0)
        spec, module = create(
            "micro_expnet", {"width_mult": 0.25}, INPUT, ("angry", "happy", "sad")
        )
        selection = SelectionConfig(criterion="l1", round_to=round_to, **options)
        module = randomise_norms(module).eval()
        return PruningSession(spec, module, Constraints(targets), selection, data)

    return make


def widths_of(module):
    return channel_counts(find_groups(trace_channels(module)))


class Trainer:
    """A trainer of two functions."""

    scoring_subset = None

    def __init__(self, train, judge=lambda net: 0.6):
        self.train, self.measure_accuracy = train, judge


class Notes(list):
    """A trainer that notes what it is asked for and how small the network is by then."""

    def __init__(self, accuracies=(), judge=lambda net: 0.6):
        super().__init__()
        self.accuracies = list(accuracies)
        self.measure_accuracy = judge

    def train(self, phase, net):
        self.append((phase.name, phase.epochs, net.plan.macs_ratio))
        return self.accuracies.pop(0) if self.accuracies else 1.0


def test_each_step_removes_the_same_fraction_of_what_remains(net):
    shrinking, notes = net(), Notes()
    load_schedule("iterative", 7, steps=4, step_epochs=2).run(shrinking, notes)
    assert [(name, epochs) for name, epochs, _ in notes] == [
        *(("step 1/4", 2), ("step 2/4", 2), ("step 3/4", 2), ("recovery", 7)),
    ]
    ratios = [ratio for *_, ratio in notes]
    assert ratios == pytest.approx([0.5**0.25, 0.5**0.5, 0.5**0.75, 0.5], abs=0.01)
    assert all(ratio <= 0.5 ** (k / 4) for k, ratio in enumerate(ratios, start=1))
    assert shrinking.plan.widths == widths_of(shrinking.module)
    assert shrinking.spec.graph == shrinking.module.graph
    # The plan leads from the first network to the last one.
    assert shrinking.plan.widths_before == widths_of(net().module)
    first = dict(net().module.named_modules())
    for name, rows in shrinking.plan.kept.items():
        assert len(rows) == shrinking.module.get_submodule(name).weight.shape[0]
        assert max(rows) < first[name].weight.shape[0]


def test_steps_keep_the_weights_that_the_plan_names(net):
    shrinking = net()
    first = copy.deepcopy(shrinking.module)
    load_schedule("iterative", 0, steps=3).run(shrinking, Notes())
    for name, rows in shrinking.plan.kept.items():
        bias = first.get_submodule(name).bias
        if bias is not None:
            assert torch.equal(shrinking.module.get_submodule(name).bias, bias[list(rows)])


@pytest.mark.parametrize("steps", [1, 4])
def test_one_shot_steps_score_and_reconstruct_anew_and_the_preview_has_the_final_plan(
    net, shown, steps
):
    shrinking, by_hand = (net(data=shown, reconstruct=True) for _ in range(2))
    preview = shrinking.preview(steps)
    load_schedule("one-shot", 0, steps=steps).run(shrinking, Notes())
    assert shrinking.plan == preview
    for step in range(steps):
        by_hand.apply(by_hand.plan_step(by_hand.remaining_budget((step + 1) / steps)))
    assert shrinking.plan == by_hand.plan
    pairs = zip(shrinking.module.parameters(), by_hand.module.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_slimming_previews_what_it_does_without_a_change_of_the_scales(net):
    shrinking = net()
    schedule = load_schedule("slimming", 0, sparse_epochs=0)
    (preview,) = schedule.preview(shrinking)
    schedule.run(shrinking, Notes())
    assert shrinking.plan == preview


@pytest.mark.parametrize("name", ["slimming", "prj"])
def test_schedules_that_penalize_scales_refuse_a_network_without_batch_norm(net, name):
    with_norms, notes = net(), Notes()
    folded = fold_for_inference(with_norms.module)
    constraints = Constraints(Targets(macs=0.5))
    shrinking = PruningSession(with_norms.spec, folded, constraints, with_norms.selection)
    with pytest.raises(UsageError, match="no batch norm"):
        load_schedule(name, 1).run(shrinking, notes)
    assert notes == []


def test_slimming_trains_under_sparsity_and_removes_the_smallest_scales_anywhere(net):
    shrinking, seen = net(), []

    def train(phase, net):
        if phase.penalty:
            seen.append(phase.penalty)
            # What the penalty is for: some scales all but vanish.
            for name in phase.penalty.scales:
                net.module.get_parameter(name).data[::2] = 1e-4
        return 1.0

    before = copy.deepcopy(shrinking.module)
    load_schedule("slimming", 1).run(shrinking, Trainer(train))
    assert isinstance(seen[0], ScaleSparsity)
    kept = {name: set(rows) for name, rows in shrinking.plan.kept.items()}
    gone = [
        row
        for name, rows in kept.items()
        if name.startswith("features") and name.endswith(".0")
        for row in range(before.get_submodule(name).weight.shape[0])
        if row not in rows
    ]
    assert gone
    assert sum(row % 2 == 0 for row in gone) / len(gone) > 0.95


def test_what_a_growing_penalty_brings_to_nothing_goes_without_a_trace(net):
    shrinking = net()

    def train(phase, net):
        if phase.penalty:
            assert isinstance(phase.penalty, GrowingPenalty)
            assert net.plan is net.start.plan
            for name, rows in phase.penalty.pruned_channels.items():
                net.module.get_parameter(name).data[list(rows)] = 0
                bias = getattr(net.module.get_submodule(name.removesuffix(".weight")), "bias", None)
                if bias is not None:
                    bias.data[list(rows)] = 0
            train.whole = copy.deepcopy(net.module)
        return 1.0

    load_schedule("greg", 1, sparsity=1e-4).run(shrinking, Trainer(train))
    images = torch.randint(
        0, 256, (4, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    with torch.no_grad():
        whole, small = (
            module(to_input(images, INPUT)) for module in (train.whole, shrinking.module)
        )
    torch.testing.assert_close(small, whole, rtol=1e-5, atol=1e-5)
    assert shrinking.plan.macs_ratio <= 0.5


def prj():
    return load_schedule("prj", 3, punish_epochs=4, punish_share=0.01, reward_epochs=2, max_drop=2)


def test_punishing_removes_a_fraction_of_the_channels_with_frozen_convolutions_up_to_the_budget(
    net,
):
    shrinking, phases = net(Targets(macs=0.8)), []

    def train(phase, net):
        phases.append((phase, sum(widths_of(net.module).values())))
        return 0.6

    prj().run(shrinking, Trainer(train))
    punishments = [(phase, channels) for phase, channels in phases if phase.on_scoring_subset]
    counts = [channels for _, channels in punishments]
    assert all(0.985 <= after / before <= 0.99 for before, after in pairwise(counts))
    frozen = set(punishments[-1][0].frozen)
    assert frozen == {
        f"{name}.weight"
        for name, part in shrinking.module.named_modules()
        if isinstance(part, nn.Conv2d)
    }
    assert isinstance(phases[4][0].penalty, ScaleSparsity)
    assert phases[4][0].epochs == 2
    assert phases[-1][0].name == "recovery"
    assert 0.77 < shrinking.plan.macs_ratio <= 0.8


def test_a_cycle_that_the_judge_refuses_is_undone(net):
    shrinking = net(targets=None)
    cycle = [0.6] * 4
    accuracies = [*cycle, 0.59, *cycle, 0.585, *cycle, 0.57]
    states = []

    def train(phase, net):
        if phase.name == "recovery":
            return 0.6
        accuracy = accuracies.pop(0)
        if "reward" in phase.name:
            states.append((net.spec.graph, net.plan))
        return accuracy

    prj().run(shrinking, Trainer(train))
    assert accuracies == []
    assert (shrinking.spec.graph, shrinking.plan) == states[1]
    assert shrinking.module.graph == states[1][0] != states[2][0]


def test_a_first_cycle_that_loses_too_much_is_an_error_with_a_hint(net):
    with pytest.raises(FertoolError, match="lost more than 2 points") as caught:
        prj().run(net(), Notes([0.6] * 4 + [0.5]))
    assert "``max_drop``" in caught.value.hint


def test_the_judge_compares_with_the_network_before_blocks_were_removed(net):
    torch.manual_seed(0)
    spec, module = create("nano_resnet", {"width_mult": 0.5}, INPUT, ("angry", "happy", "sad"))
    images = open_data("synth:70", DataOptions(size=32)).split("train")
    shrinking = PruningSession(
        spec,
        module.eval(),
        Constraints(Targets(macs=0.3)),
        SelectionConfig(criterion="l1", round_to=1, reconstruct=False),
        images,
    )
    whole = count(module, INPUT).macs
    shrinking.remove_blocks(2)

    def accuracy(one):
        return 0.6 * count(one.module, INPUT).macs / whole

    with pytest.raises(FertoolError, match="lost more than 2 points"):
        prj().run(shrinking, Trainer(lambda phase, one: accuracy(one), accuracy))


def test_penalties_lead_to_the_last_epoch(net):
    for schedule in ("slimming", "greg"):
        phases = []

        def train(phase, net, phases=phases):
            phases.append(phase)
            return 1.0

        load_schedule(schedule, 1).run(net(), Trainer(train))
        assert [phase.keep_last_epoch for phase in phases] == [True, False]


def test_several_cuts_keep_as_much_of_each_width_as_one_must(net):
    shrinking = net(Targets(macs=0.001))
    with pytest.raises(UnreachableError):
        shrinking.prune_in_steps(6)
    before = widths_of(net().module)
    assert shrinking.plan.macs_ratio < 0.1
    assert all(width >= 0.1 * before[name] for name, width in widths_of(shrinking.module).items())


def test_punishing_that_can_remove_nothing_raises_the_error_of_the_budget(net):
    with pytest.raises(UnreachableError, match=r"channels at 1\.000"):
        prj().run(net(None, round_to=512), Notes())


def test_max_drop_finds_the_smallest_network_that_passes(net):
    shrinking = net(targets=None)
    whole = count(shrinking.module, INPUT).macs

    def judge(one):
        return min(
            1.0, 0.5 + count(one.module, INPUT).macs / whole
        )  # loses points below half the MACs

    notes = Notes(judge=judge)
    load_schedule("one-shot", 3, max_drop=5).run(shrinking, notes)
    assert 0.45 <= count(shrinking.module, INPUT).macs / whole <= 0.48
    assert [(name, epochs) for name, epochs, _ in notes] == [("recovery", 3)]


def test_a_max_drop_that_no_network_meets_is_an_error(net):
    accuracies = iter([1.0])
    with pytest.raises(FertoolError, match="loses less than 1 points"):
        load_schedule("one-shot", 1, max_drop=1).run(
            net(targets=None), Notes(judge=lambda one: next(accuracies, 0.0))
        )


ANOTHER = """
from dataclasses import dataclass

from fertool.pruning import Phase, Schedule


@dataclass(frozen=True)
class Member(Schedule):
    \"\"\"Train twice as long as usual, then prune.\"\"\"

    warmth: int = 2

    def run(self, session, trainer):
        trainer.train(Phase("warm", self.warmth * self.epochs), session)
        session.prune_in_steps()
"""


def test_a_schedule_of_another_package_prunes_and_asks_for_its_trainings(net, install):
    install("fertool.schedules", "warm", ANOTHER)
    assert SCHEDULES.options("warm") == {"warmth": 2}
    shrinking, notes = net(), Notes()
    load_schedule("warm", 3).run(shrinking, notes)
    assert [(name, epochs) for name, epochs, _ in notes] == [("warm", 6)]
    assert shrinking.plan.macs_ratio <= 0.5


def test_the_options_of_schedules_are_known_with_their_defaults_before_they_are_imported():
    assert SCHEDULES.options("one-shot") == {"steps": 1, "max_drop": None}
    assert SCHEDULES.options("greg") == {"sparse_epochs": 5, "sparsity": 1.0}
    for name in SCHEDULES.names():
        member = load_schedule(name, 7)
        for option, default in SCHEDULES.options(name).items():
            assert getattr(member, option) == default
