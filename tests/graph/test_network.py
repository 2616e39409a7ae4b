import copy

import pytest
import torch
from graphs import network_of
from small_networks import Net, captured
from torch import nn
from torch.nn import functional as F

from fertool.errors import FertoolError
from fertool.graph.capture import capture
from fertool.graph.network import Network
from fertool.models import load_model, save_model
from fertool.spec import InputSpec, Spec

IMAGE = (1, 10, 10)


class Mixed(nn.Module):
    """Batch norm, dropout, a residual, a gate, chunk and concatenation,
    layer scale and a constant.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4))
        self.gate, self.drop = nn.Conv2d(8, 8, 1), nn.Dropout(0.5)
        self.gamma = nn.Parameter(torch.full((1, 8, 1, 1), 0.5))
        self.register_buffer("shift", torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        still, moving = x.chunk(2, dim=1)
        x = x + torch.cat([still, self.branch(moving)], dim=1) * self.gamma
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))) + self.shift
        x = self.drop(F.max_pool2d(x, 2))
        return self.head(self.norm(x.mean((2, 3))))


@pytest.fixture
def pair():
    """A module and the network made of it."""
    torch.manual_seed(0)
    module = Mixed()
    return module, network_of(module, IMAGE)


def images(count=6, seed=1):
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed))


def test_it_has_the_modules_tensors_and_its_own_copy_of_them(pair):
    module, network = pair
    theirs, ours = module.state_dict(), network.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert {n for n, _ in network.named_parameters()} == {n for n, _ in module.named_parameters()}
    with torch.no_grad():
        network.layer("head").weight.zero_()
    assert module.head.weight.abs().sum() > 0


@pytest.mark.parametrize("training", [False, True])
def test_results_gradients_and_statistics_are_the_modules(pair, training):
    module, network = (part.train(training) for part in pair)
    for step in range(3):
        results = []
        for part in (module, network):
            torch.manual_seed(step)
            results.append(part(images(seed=step)))
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
        for part, result in zip((module, network), results, strict=True):
            part.zero_grad()
            result.square().sum().backward()
        theirs = dict(module.named_parameters())
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-5)
    theirs = module.state_dict()
    assert all(
        torch.allclose(tensor, theirs[name], atol=1e-6)
        for name, tensor in network.state_dict().items()
    )
    assert (network.get_buffer("stem.1.num_batches_tracked") > 0) == training


def test_dropout_drops_in_training_alone(pair):
    _, network = pair
    with torch.no_grad():
        assert torch.equal(network(images()), network(images()))
        network.train()
        assert not torch.equal(network(images()), network(images()))


def test_it_learns(pair):
    _, network = pair
    labels = torch.arange(6) % 3
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(F.cross_entropy(network(images()), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_any_number_of_images(pair):
    module, network = pair
    with torch.no_grad():
        for count in (1, 2, 7):
            torch.testing.assert_close(
                network(images(count)), module(images(count)), rtol=1e-6, atol=1e-6
            )


def test_copies_are_whole_and_independent(pair):
    _, network = pair
    network.insert_after("stem.2", nn.Hardtanh(0, 0.5))
    before = network(images()).detach()
    copied = copy.deepcopy(network)
    assert torch.equal(copied(images()), before)
    assert copied.graph == network.graph
    with torch.no_grad():
        for tensor in copied.state_dict().values():
            tensor.zero_()
    assert torch.equal(network(images()), before)
    assert copied(images()).abs().sum() == 0
    # What stands alone in the graph is read from the copy too.
    assert copied.gamma.abs().sum() == 0


def test_it_moves_with_all_its_tensors(pair):
    _, network = pair
    before = network(images())
    torch.testing.assert_close(
        network.double()(images().double()), before.double(), rtol=1e-5, atol=1e-5
    )
    assert network.to("meta")(images().double().to("meta")).shape == (6, 3)
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}


def test_without_values_it_is_on_the_meta_device_and_knows_its_shapes(pair):
    module, network = pair
    empty = Network(network.graph, IMAGE)
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    assert empty.shapes["stem.0"] == (8, 10, 10)
    assert empty.shapes["head"] == (3,)
    empty.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(empty.eval()(images()), network(images()))


def test_a_file_brings_it_back(pair, tmp_path):
    _, network = pair
    spec = Spec("mixed", {}, network.graph, InputSpec(1, 10), ("a", "b", "c"))
    saved = save_model(tmp_path / "mixed.pt", spec, network)
    again, loaded = load_model(tmp_path / "mixed.pt")
    assert again == saved
    assert isinstance(loaded, Network)
    assert not loaded.training
    assert torch.equal(loaded(images()), network(images()))
    assert loaded.graph == network.graph
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.get_buffer("shift").requires_grad


def test_listeners_see_every_result_once_and_change_nothing(pair):
    _, network = pair
    before = network(images())
    seen = {}
    for node in network.graph.nodes:
        if not node.operator.multi_output:
            network.listeners[node.name] = lambda result, name=node.name: seen.setdefault(
                name, []
            ).append(result)
    assert torch.equal(network(images()), before)
    assert {len(results) for results in seen.values()} == {1}
    assert torch.equal(seen["head"][0], before)
    assert all(
        tuple(results[0].shape[1:]) == network.shapes[name]
        for name, results in seen.items()
        if name != "gamma" and name != "shift"
    )


class Halved(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.factor


def test_taps_change_what_is_read_and_learn(pair):
    module, network = pair
    tap, seen = Halved(), []
    network.insert_after("stem.2", tap)
    network.listeners["stem.2"] = seen.append
    result = network(images())
    plain = module.stem(images())
    torch.testing.assert_close(seen[0], 0.5 * plain)
    hook = module.stem.register_forward_hook(lambda *parts: parts[-1] * 0.5)
    torch.testing.assert_close(result, module(images()), rtol=1e-6, atol=1e-6)
    hook.remove()
    result.sum().backward()
    assert tap.factor.grad is not None
    assert any(parameter is tap.factor for parameter in network.parameters())
    assert "stem.0.weight" in network.state_dict()


def test_the_images_can_be_tapped_and_listened_to(pair):
    module, network = pair
    seen = []
    network.insert_after("x", Halved())
    network.listeners["x"] = seen.append
    torch.testing.assert_close(network(images()), module(0.5 * images()), rtol=1e-6, atol=1e-6)
    assert torch.equal(seen[0], 0.5 * images())


def test_a_tap_replaces_the_one_before_and_one_may_serve_several(pair):
    _, network = pair
    first, second = Halved(), Halved()
    network.insert_after("stem.2", first)
    network.insert_after("stem.2", second)
    network.insert_after("branch.1", second)
    network(images())
    assert (first.calls, second.calls) == (0, 2)
    assert sum(isinstance(part, Halved) for part in network.modules()) == 1
    assert dict(network.inserted) == {"stem.2": second, "branch.1": second}


def test_tapped_copies_leave_the_network_as_it_is(pair):
    _, network = pair
    before, tap = network(images()), Halved()
    changed = network.with_inserted({"stem.2": tap})
    changed(images())
    assert tap.calls == 1
    assert torch.equal(network(images()), before)
    assert not network.inserted


def test_a_layer_can_be_replaced(pair):
    _, network = pair
    wider = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    network.replace("stem.0", wider)
    seen = []
    network.listeners["stem.0"] = seen.append
    network(images())
    assert network.layer("stem.0") is wider
    assert network.get_submodule("stem.0") is wider
    assert torch.equal(seen[0], wider(images()))
    assert network.layer("cat") is None


def test_the_result_of_a_network_in_training_is_computed_by_the_operators_of_its_graph():
    """Stochastic depth drops whole images, by the share that its module had."""

    class StochasticDepth(nn.Module):
        p = 0.5

        def forward(self, x):
            return x

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop_path = StochasticDepth()
            self.drop_path.p = 0.5

        def forward(self, x):
            return x + self.drop_path(x.clone() * 1.0)

    graph = capture(Deep(), IMAGE).graph
    network = Network(graph, IMAGE)
    assert "stochastic_depth" in {node.op for node in graph.nodes}
    x = torch.ones(2000, 1, 10, 10)
    torch.manual_seed(0)
    result = network.train()(x)
    assert set(result.unique().tolist()) == {1.0, 3.0}
    assert 0.4 < (result[:, 0, 0, 0] == 3).float().mean() < 0.6
    assert torch.equal(network.eval()(x), 2 * x)


def test_slices_to_the_end_and_back():
    class Cut(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :, 3:], x[:, :, :-7], x[:, :, 1:8:3]], dim=2).flatten(1)

    module = Cut()
    assert torch.equal(network_of(module, IMAGE)(images()), module(images()))


def test_a_network_that_treats_images_together_is_refused():
    class Together(nn.Module):
        def forward(self, x):
            return x.flatten(1) if len(x) == 2 else x.flatten(1) + 1

    with pytest.raises(FertoolError, match="other batch sizes"):
        capture(Together(), IMAGE)


@pytest.mark.parametrize("axes", [1, 2])
def test_an_even_kernel_that_keeps_the_size_is_padded_by_a_node_of_its_own(axes):
    if axes == 1:
        net = Net(
            lambda s, x: s.conv(x.flatten(2)).mean(2), conv=nn.Conv1d(1, 7, 4, padding="same")
        )
    else:
        net = Net(lambda s, x: s.conv(x).mean((2, 3)), conv=nn.Conv2d(1, 7, 4, padding="same"))
    network = captured(net, (1, 4, 4))
    images = torch.rand(2, 1, 4, 4)
    assert "pad" in [node.op for node in network.graph.nodes]
    torch.testing.assert_close(network(images), net(images))
