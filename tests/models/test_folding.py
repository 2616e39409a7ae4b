import torch
from fertool.models.folding import folded
from torch import nn


class Branches(nn.Module):
    """One batch norm that can be folded, one whose convolution has another reader, dropout, and a mean over pixels."""

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


def test_folding_keeps_the_function_and_the_original():
    module = with_statistics(Branches()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    network = folded(module)
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    images = torch.randn(5, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (network(images) - module.eval()(images)).abs().max() < 1e-5


def test_only_the_norm_of_a_shared_convolution_stays():
    kinds = [type(layer) for layer in folded(Branches()).modules()]
    assert kinds.count(nn.BatchNorm2d) == 1
    assert nn.BatchNorm1d not in kinds
    assert nn.Dropout not in kinds
    assert folded(Branches()).get_submodule("first.0").bias is not None


def test_folding_works_without_storage():
    with torch.device("meta"):
        network = folded(Branches())
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
    assert network.first.get_submodule("0").weight.shape == (6, 1, 3, 3)
