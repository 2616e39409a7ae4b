import pytest
import torch
from torch import nn

from fertool.models import create
from fertool.models.batched_run import BatchedRun
from fertool.spec import InputSpec


class Halves(nn.Module):
    def forward(self, values):
        return values / 2


@pytest.fixture
def network():
    torch.manual_seed(0)
    _, module = create("nano_resnet", {"width_mult": 0.25}, InputSpec(1, 32), ("a", "b", "c"))
    return module.eval()


@torch.no_grad()
def test_results_and_inputs_of_nodes_are_those_of_a_forward_pass(network):
    convolutions = [node.name for node in network.graph.nodes if node.op == "conv2d"]
    network.insert_after(convolutions[1], Halves())
    images = torch.rand(7, 1, 32, 32)
    seen = {}

    def keep(name):
        return lambda layer, inputs, output: seen.update({name: (inputs[0], output)})

    for name in convolutions:
        network.get_submodule(name).register_forward_hook(keep(name))
    wanted = network(images)
    expected = dict(seen)

    run = BatchedRun(network, images.split(3))
    for name in convolutions:
        arriving = torch.cat(run.inputs_of(name))
        torch.testing.assert_close(arriving, expected[name][0])
        halved = 2 if name == convolutions[1] else 1
        found = torch.cat(run.outputs_of(name))
        torch.testing.assert_close(halved * found, expected[name][1])
    torch.testing.assert_close(torch.cat(run.outputs_of(network.graph.output)), wanted)


@torch.no_grad()
def test_a_layer_that_is_changed_before_it_runs_counts(network):
    last = network.graph.nodes[-1].name
    images = torch.rand(4, 1, 32, 32)
    run = BatchedRun(network, images.split(2))
    run.inputs_of(last)
    network.get_submodule(last).weight.zero_()
    bias = network.get_submodule(last).bias
    torch.testing.assert_close(torch.cat(run.outputs_of(last)), bias.expand(4, -1))
