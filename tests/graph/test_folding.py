import pytest
import torch
from graphs import network_of
from torch import nn

from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network

IMAGE = (1, 9, 9)


class Branches(nn.Module):
    """One batch norm that can be folded, one whose convolution has another reader, dropout,
    and a mean over pixels.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.shared, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.head, self.head_norm = nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False)

    def forward(self, x):
        x = self.shared(self.first(x))
        x = x + self.norm(x)
        return self.head_norm(self.head(self.drop(x.mean([2, 3]))))


def with_statistics(module):
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(layer.bias, generator=generator)
    return module


def images(shape=IMAGE):
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))


def agree(network, module, image=IMAGE):
    with torch.no_grad():
        return (network(images(image)) - module.eval()(images(image))).abs().max() < 1e-5


def test_folding_keeps_the_function_and_the_original():
    module = with_statistics(Branches())
    network = network_of(module, IMAGE).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = fold_for_inference(network)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not any(
        tensor.data_ptr() == before.data_ptr() for before, tensor in pairs(network, result)
    )
    assert not result.training
    assert agree(result, module)


def pairs(network, other):
    theirs = other.state_dict()
    return [
        (tensor, theirs[name]) for name, tensor in network.state_dict().items() if name in theirs
    ]


def test_only_the_norm_of_a_shared_convolution_stays():
    network = network_of(Branches(), IMAGE)
    result = fold_for_inference(network)
    found = [node.op for node in result.graph.nodes]
    assert [node.name for node in result.graph.nodes if node.op == "batch_norm"] == ["norm"]
    assert "dropout" not in found
    assert "mean" not in found
    assert found.count("adaptive_avg_pool2d") == 1
    assert result.get_submodule("first.0").bias is not None
    assert result.graph.output == "head"


def test_folding_works_without_storage():
    empty = Network(network_of(Branches(), IMAGE).graph, IMAGE)
    network = fold_for_inference(empty)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert network.get_submodule("first.0").weight.shape == (6, 1, 3, 3)


class Rows(nn.Module):
    """A linear layer over several rows, whose norm has a channel for each row."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm, self.head = nn.Linear(9, 4), nn.BatchNorm1d(9), nn.Linear(36, 3)

    def forward(self, x):
        return self.head(self.norm(self.fc(x[:, 0])).flatten(1))


def test_a_norm_over_rows_is_no_part_of_the_linear_layer():
    module = with_statistics(Rows())
    result = fold_for_inference(network_of(module, IMAGE))
    assert "norm" in result.graph.by_name
    assert agree(result, module)


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dims", [(2, 3), (-1, -2)])
def test_means_over_the_image_become_pools(keepdim, dims):
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean(dims, keepdim=keepdim).flatten(1))

    module = Mean()
    result = fold_for_inference(network_of(module, IMAGE))
    assert "mean" not in {node.op for node in result.graph.nodes}
    assert agree(result, module)


def test_what_training_alone_needs_goes_even_as_the_result():
    module = nn.Sequential(nn.Flatten(), nn.Linear(81, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    result = fold_for_inference(network_of(with_statistics(module), IMAGE))
    assert [node.op for node in result.graph.nodes] == ["flatten", "linear"]
    assert result.graph.output == "1"
    assert agree(result, module)
