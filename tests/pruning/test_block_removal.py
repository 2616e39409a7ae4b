import copy

import pytest
import torch
from torch import nn

from fertool import cost
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.graph.blocks import find_blocks, without_block
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.models import architecture_names, create
from fertool.pruning import Constraints, PruningSession, Targets
from fertool.pruning.block_removal import remove_block
from fertool.spec import InputSpec
from fertool.training import predict_logits

INPUT = InputSpec(size=32)
DEEP = [name for name in architecture_names() if not name.startswith("shufflenet")]


@pytest.fixture(scope="module")
def faces():
    return open_data("synth:210", DataOptions(size=32)).split("train")


def a_net(arch, randomise_norms):
    torch.manual_seed(0)
    args = {} if arch == "eff_resnet18" else {"width_mult": 0.5}
    spec, module = create(arch, args, INPUT, ("angry", "happy", "sad"))
    return spec, randomise_norms(module).eval()


class Silence(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize("arch", DEEP)
def test_a_network_without_a_block_is_the_one_that_skips_it(arch, faces, randomise_norms):
    _, module = a_net(arch, randomise_norms)
    blocks = find_blocks(module)
    assert blocks
    few = faces.subset(torch.arange(8))
    for block in blocks:
        shorter = without_block(module, block)
        silenced = copy.deepcopy(module)
        add = module.graph.by_name[block.sum]
        end = next(name for name in add.inputs if name != block.shortcut)
        silenced.insert_after(end, Silence())
        torch.testing.assert_close(
            predict_logits(shorter, few, INPUT), predict_logits(silenced, few, INPUT)
        )
        assert cost.count(shorter, INPUT).params < cost.count(module, INPUT).params


def test_the_block_goes_whose_absence_changes_least(faces, randomise_norms):
    spec, module = a_net("nano_resnet", randomise_norms)
    images = faces.subset(torch.arange(64))
    inputs = to_input(images.images, INPUT)
    costs = {}
    with torch.no_grad():
        p = module(inputs).softmax(1)
        for block in find_blocks(module):
            add = module.graph.by_name[block.sum]
            silence = {name: Silence() for name in add.inputs if name != block.shortcut}
            q = module.with_inserted(silence)(inputs).softmax(1)
            costs[block.name] = float((p * (p / q).log()).sum(1).mean())
    found = remove_block(spec, module, images, reconstruct_layers=False)
    gone = set(module.graph.channels) - set(found.spec.graph.channels)
    assert {name.rpartition(".")[0] for name in gone} == {min(costs, key=costs.get)}
    assert found.spec.graph == found.module.graph
    assert found.plan.macs == cost.count(found.module, INPUT).macs
    assert found.plan.macs_before == cost.count(module, INPUT).macs


def test_reconstruction_brings_networks_without_a_block_nearer_to_the_original(
    faces, randomise_norms
):
    spec, module = a_net("resnet18", randomise_norms)
    wanted = predict_logits(module, faces, INPUT)
    plain, reconstructed = (
        predict_logits(
            remove_block(spec, module, faces, reconstruct_layers=reconstruct).module, faces, INPUT
        )
        for reconstruct in (False, True)
    )
    assert (reconstructed - wanted).square().mean() < 0.8 * (plain - wanted).square().mean()


def test_blocks_then_channels_meet_the_budget_of_the_file(faces, randomise_norms):
    spec, module = a_net("mobilenet_v2", randomise_norms)
    whole = cost.count(module, INPUT).macs
    net = PruningSession(
        spec,
        module,
        Constraints(Targets(macs=0.5)),
        SelectionConfig(criterion="l1", round_to=1, reconstruct=False),
        faces,
    )
    net.remove_blocks(2)
    layers, blocks = set(net.spec.graph.channels), len(find_blocks(module))
    assert len(find_blocks(net.module)) == blocks - 2
    net.apply(net.plan_step(net.remaining_budget()))
    assert 0.45 <= cost.count(net.module, INPUT).macs / whole <= 0.5
    assert net.plan.macs_ratio == pytest.approx(cost.count(net.module, INPUT).macs / whole)
    assert set(net.spec.graph.channels) == layers


def test_blocks_with_a_group_that_must_not_fall_stay(faces, randomise_norms):
    spec, module = a_net("nano_resnet", randomise_norms)
    first, *others = find_blocks(module)
    inner = next(name for name in find_groups(trace_channels(module)).names if name in first.nodes)
    net = PruningSession(
        spec,
        module,
        Constraints(floors={inner: 1}),
        SelectionConfig(criterion="l1", reconstruct=False),
        faces,
    )
    net.remove_blocks(len(others))
    assert [block.name for block in find_blocks(net.module)] == [first.name]
    with pytest.raises(FertoolError, match="no residual block left"):
        net.remove_blocks(1)


def test_removing_more_blocks_than_there_are_is_an_error(faces, randomise_norms):
    spec, module = a_net("nano_resnet", randomise_norms)
    net = PruningSession(
        spec, module, Constraints(), SelectionConfig(criterion="l1", reconstruct=False), faces
    )
    with pytest.raises(FertoolError, match="no residual block left"):
        net.remove_blocks(6)
