import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fertool.config.pruning import SelectionConfig
from fertool.data import FaceDataset
from fertool.data.pixels import to_input
from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.losses import output_factor
from fertool.pruning import Constraints, Targets, prune
from fertool.pruning.criterion import load_criterion
from fertool.pruning.gate_criterion import GateCriterion
from fertool.pruning.weight_criterion import WeightCriterion
from fertool.registry import CRITERIA
from fertool.spec import InputSpec, Spec

INPUT = InputSpec(size=8)


def members(kind):
    """Names of the criteria that are of this kind."""
    return [name for name in CRITERIA.names() if issubclass(CRITERIA.load(name), kind)]


class Small(nn.Module):
    """Convolutions, one depthwise, in-place activations, a residual sum, a hidden linear layer."""

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
    return capture(randomise_norms(Small().eval()), (1, 8, 8)).network((1, 8, 8))


@pytest.fixture
def faces():
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return FaceDataset(images, torch.arange(10) % 3, ("a", "b", "c"), "train", "")


def outputs(graph, name):
    return next(layer for layer in graph.layers if layer.name == name).outputs


def by_hand(criterion, layer, norm):
    rows = [row.double().flatten() for row in layer.weight.detach()]
    if criterion not in ("l1", "l2", "l2-gamma", "bn-gamma"):
        # Of a member that is new here, the mean over layers is tested and not the scores.
        scales = None if norm is None else norm.weight.detach().double()
        return load_criterion(criterion).score_filters(torch.stack(rows), scales)
    norms = {"l1": [row.abs().sum() for row in rows]}.get(
        criterion, [row.square().sum().sqrt() for row in rows]
    )
    gammas = [1.0] * len(rows) if norm is None else norm.weight.detach().double().abs().tolist()
    if criterion == "bn-gamma" and norm is not None:
        return torch.tensor(gammas, dtype=torch.float64)
    if criterion == "l2-gamma":
        norms = [value * gamma for value, gamma in zip(norms, gammas, strict=True)]
    return torch.tensor([float(value) for value in norms], dtype=torch.float64)


@pytest.mark.parametrize("criterion", members(WeightCriterion))
def test_weight_scores_are_means_over_coupled_layers_relative_to_each_layer(net, criterion):
    graph = trace_channels(net)
    scores = load_criterion(criterion).score(net, graph, None, INPUT)
    assert not scores.additive
    pairs = ((net.stem, net.bn1), (net.dw, net.bn2), (net.out, net.bn3))
    # The scale behind the depthwise convolution closes the path of the one before it once more.
    sizes = [
        by_hand(criterion, *pair)
        for pair in pairs
        if criterion != "bn-gamma" or pair[0] is not net.dw
    ]
    relative = [size / size.mean() for size in sizes]
    torch.testing.assert_close(scores.values[outputs(graph, "stem")], sum(relative) / len(relative))
    hidden = by_hand(criterion, net.hidden, None)
    unit = scores.values[outputs(graph, "stem")].mean() if criterion == "bn-gamma" else 1
    torch.testing.assert_close(
        scores.values[outputs(graph, "hidden")], hidden / hidden.mean() * unit
    )


def test_scales_compare_as_they_are_across_layers_where_they_are_asked_to(net):
    graph = trace_channels(net)
    scores = load_criterion("bn-gamma").score(net, graph, None, INPUT, normalization="none")
    assert scores.additive
    stream = (net.bn1.weight.abs() + net.bn3.weight.abs()).detach().double() / 2
    torch.testing.assert_close(scores.values[outputs(graph, "stem")], stream)


def test_taylor_equals_the_gradient_of_the_scale_image_by_image(net, faces):
    graph = trace_channels(net)
    scores = load_criterion("taylor").score(net, graph, faces, INPUT, batch_size=4).values  # type: ignore[call-arg]
    stream, hidden = torch.zeros(6), torch.zeros(5)
    for image, label in zip(faces.images, faces.labels, strict=True):
        net.zero_grad()
        F.cross_entropy(net(to_input(image[None], INPUT)), label[None]).backward()
        # One class: the stem's channels and the residual branch that is added to them.
        stream += sum((bn.weight.grad * bn.weight).abs() for bn in (net.bn1, net.bn3))
        hidden += (
            (net.hidden.weight.grad * net.hidden.weight).sum(1)
            + net.hidden.bias.grad * net.hidden.bias
        ).abs()
    torch.testing.assert_close(
        scores[outputs(graph, "stem")].float(), stream.detach(), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        scores[outputs(graph, "hidden")].float(), hidden.detach(), rtol=1e-4, atol=1e-6
    )


def test_kl_is_half_the_mean_squared_change_when_all_gates_of_a_class_close(net, faces):
    """Closing the gates of an id changes the logits by J: KL is `J^T (diag(p) - p p^T) J / 2`."""
    graph = trace_channels(net)
    found = (
        sum(
            load_criterion("kl").score(net, graph, faces, INPUT, batch_size=4, seed=seed).values  # type: ignore[call-arg]
            for seed in range(400)
        )
        / 400
    )
    stream, hidden = torch.zeros(6), torch.zeros(5)
    for image in faces.images:
        logits = net(to_input(image[None], INPUT))[0]
        for column in output_factor(logits[None].detach())[0].T:
            net.zero_grad()
            (column @ logits).backward(retain_graph=True)
            stream += (
                sum(bn.weight.grad * bn.weight.detach() for bn in (net.bn1, net.bn3)).square() / 2
            )
            changes = net.hidden.weight.grad * net.hidden.weight.detach()
            hidden += (
                changes.sum(1) + net.hidden.bias.grad * net.hidden.bias.detach()
            ).square() / 2
    torch.testing.assert_close(found[outputs(graph, "stem")].float(), stream, rtol=0.1, atol=1e-6)
    torch.testing.assert_close(found[outputs(graph, "hidden")].float(), hidden, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("criterion", members(GateCriterion))
def test_scoring_on_images_does_not_change_the_network(net, faces, criterion):
    net.train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = trace_channels(net)
    load_criterion(criterion).score(net, graph, faces, INPUT)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(layer._forward_hooks for layer in net.modules())


def test_progress_counts_images(net, faces):
    seen = []
    graph = trace_channels(net)
    load_criterion("taylor").score(  # type: ignore[call-arg]
        net,
        graph,
        faces,
        INPUT,
        batch_size=4,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]


ANOTHER = """
import torch

from fertool.pruning.weight_criterion import WeightCriterion


class Member(WeightCriterion):
    \"\"\"The later a channel, the more important.\"\"\"

    def score_filters(self, weights, scales):
        return torch.arange(1.0, len(weights) + 1, dtype=torch.float64)
"""


def test_a_criterion_of_another_package_decides_which_channels_go(net, install):
    install("fertool.criteria", "by-position", ANOTHER)
    spec = Spec("small", {}, net.graph, INPUT, ("a", "b", "c"))
    selection = SelectionConfig(criterion="by-position", round_to=1)
    plan = prune(spec, net, Constraints(Targets(params=0.7)), selection).plan
    assert plan.widths["stem"] < 6
    assert plan.kept["stem"] == tuple(range(6 - plan.widths["stem"], 6))
