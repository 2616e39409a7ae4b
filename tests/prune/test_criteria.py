import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fertool.data import FaceDataset
from fertool.data.pixels import to_input
from fertool.prune.criteria import l1_scores, taylor_scores
from fertool.prune.graph import trace_channels
from fertool.spec import InputSpec

INPUT = InputSpec(size=8)


class Small(nn.Module):
    """Conv, depthwise conv, gate, residual sum and a hidden linear layer, with an activation in place."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.dw, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.out, self.bn3 = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.hidden, self.fc = nn.Linear(6, 5), nn.Linear(5, 3)
        self.act1, self.act2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.act1(self.bn1(self.stem(x)))
        y = self.bn3(self.out(self.act2(self.bn2(self.dw(x)))))
        return self.fc(F.hardswish(self.hidden((x + y).mean((2, 3)))))


@pytest.fixture
def net(randomise_norms):
    torch.manual_seed(0)
    return randomise_norms(Small().eval())


@pytest.fixture
def faces():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return FaceDataset(images, torch.arange(10) % 3, ("a", "b", "c"), "train", "")


def outputs(graph, name):
    return next(layer for layer in graph.layers if layer.name == name).outputs


def test_l1_is_the_mean_over_the_class_of_norms_relative_to_their_layer(net):
    graph = trace_channels(net, INPUT)
    scores = l1_scores(net, graph).values
    relative = []
    for layer in (net.stem, net.dw, net.out):
        norms = torch.tensor([float(row.double().abs().sum()) for row in layer.weight.detach()], dtype=torch.float64)
        relative.append(norms / norms.mean())
    torch.testing.assert_close(scores[outputs(graph, "stem")], sum(relative) / 3)
    assert float(scores[outputs(graph, "hidden")].mean()) == pytest.approx(1)


def test_taylor_equals_the_gradient_of_the_scale_image_by_image(net, faces):
    graph = trace_channels(net, INPUT)
    scores = taylor_scores(net, graph, faces, INPUT, batch_size=4).values
    stream, hidden = torch.zeros(6), torch.zeros(5)
    for image, label in zip(faces.images, faces.labels, strict=True):
        net.zero_grad()
        F.cross_entropy(net(to_input(image[None], INPUT)), label[None]).backward()
        # One class: the stem's channels and the residual branch that is added to them.
        stream += sum((bn.weight.grad * bn.weight).abs() for bn in (net.bn1, net.bn3))
        hidden += ((net.hidden.weight.grad * net.hidden.weight).sum(1) + net.hidden.bias.grad * net.hidden.bias).abs()
    torch.testing.assert_close(scores[outputs(graph, "stem")].float(), stream.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores[outputs(graph, "hidden")].float(), hidden.detach(), rtol=1e-4, atol=1e-6)


def test_taylor_leaves_the_network_as_it_was(net, faces):
    net.train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = trace_channels(net, INPUT)
    taylor_scores(net, graph, faces, INPUT)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())


def test_progress_counts_images(net, faces):
    seen = []
    graph = trace_channels(net, INPUT)
    taylor_scores(net, graph, faces, INPUT, batch_size=4, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]
