import pytest
import torch
from torch import nn

from fertool.config.pruning import SelectionConfig
from fertool.models import create
from fertool.pruning import Constraints, PenalizedObjective, Targets
from fertool.pruning.penalties import GrowingPenalty, ScaleSparsity
from fertool.pruning.pruning_step import plan_step
from fertool.spec import InputSpec

CLASSES = ("angry", "happy", "sad")


class Constant:
    """An objective of no interest."""

    fingerprint = "constant"

    def __call__(self, module, inputs, targets):
        return torch.tensor(2.0)


@pytest.fixture
def net(randomise_norms):
    torch.manual_seed(0)
    spec, module = create("micro_expnet", {"width_mult": 0.25}, InputSpec(size=32), CLASSES)
    return spec, randomise_norms(module).eval()


def test_sparsity_is_the_l1_norm_of_the_scales_that_close_a_channel(net):
    spec, module = net
    graph = plan_step(
        spec, module, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=1)
    ).graph
    penalty = ScaleSparsity.from_graph(graph, 0.01)
    depthwise = {layer.name for layer in graph.layers if layer.kind == "grouped"}
    names = [layer.name for layer in graph.layers]
    norms = [
        part.weight.abs().sum()
        for name, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d) and names[names.index(name) - 1] not in depthwise
    ]
    assert len(norms) > 10
    torch.testing.assert_close(penalty(module, 0.0), 0.01 * sum(norms))
    penalty(module, 0.0).backward()
    assert module.get_parameter(penalty.scales[0]).grad.abs().eq(0.01).all()


def test_the_growing_penalty_is_that_of_all_weights_that_will_go(net, zero_removed):
    spec, module = net
    cut = plan_step(spec, module, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=1))
    penalty = GrowingPenalty.from_plan(module, cut.graph, cut.plan, 0.3)
    without = zero_removed(module, cut.plan)
    lost = sum(
        (before.square().sum() - after.square().sum()).item()
        for (name, before), after in zip(
            module.named_parameters(), without.parameters(), strict=True
        )
        if name.endswith("weight")
    )
    assert penalty(module, 1.0).item() == pytest.approx(0.15 * lost, rel=1e-4)
    assert penalty(module, 0.5).item() == pytest.approx(0.075 * lost, rel=1e-4)
    assert penalty(without, 1.0).item() == 0


def test_a_penalised_objective_grows_with_the_epochs_and_names_all_that_it_depends_on(net):
    spec, module = net
    cut = plan_step(spec, module, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=1))
    penalty = GrowingPenalty.from_plan(module, cut.graph, cut.plan, 0.3)
    objective = PenalizedObjective(Constant(), penalty, 4)
    values = []
    for epoch in (1, 2, 4):
        targets = torch.zeros(1, 3)
        assert objective.plan_epoch(epoch, targets) == (targets, None)
        values.append(objective(module, None, targets).item() - 2)
    assert values == pytest.approx(
        [values[2] / 4, values[2] / 2, penalty(module, 1.0).item()], rel=1e-5
    )
    others = [
        PenalizedObjective(Constant(), penalty, 5),
        PenalizedObjective(
            Constant(), GrowingPenalty.from_plan(module, cut.graph, cut.plan, 0.4), 4
        ),
        PenalizedObjective(Constant(), ScaleSparsity.from_graph(cut.graph, 0.3), 4),
    ]
    assert len({objective.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_it_plans_as_the_objective_does(net):
    class Planner(Constant):
        def plan_epoch(self, epoch, targets):
            return targets + epoch, "changes"

    spec, module = net
    cut = plan_step(spec, module, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=1))
    planned = PenalizedObjective(Planner(), ScaleSparsity.from_graph(cut.graph, 0.3), 4).plan_epoch(
        3, torch.zeros(2)
    )
    assert planned[0].tolist() == [3, 3]
    assert planned[1] == "changes"
