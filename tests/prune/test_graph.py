import pytest
import torch
import torch.nn.functional as F
from fertool.prune.graph import trace_channels
from torch import nn

from fertool.cost import count
from fertool.errors import FertoolError
from fertool.spec import InputSpec

INPUT = InputSpec(size=4)


class Net(nn.Module):
    """`layers` by name, and `run(self, x)` as the forward."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.run(self, x)


def layer_of(graph, name):
    return next(layer for layer in graph.layers if layer.name == name)


def outputs(graph, name):
    return layer_of(graph, name).outputs.tolist()


def inputs(graph, name):
    return layer_of(graph, name).inputs.tolist()


def test_residual_addition_merges_channels_in_pairs():
    net = Net(
        lambda s, x: s.c(s.a(x) + s.b(x)), a=nn.Conv2d(1, 3, 3, padding=1), b=nn.Conv2d(1, 3, 1), c=nn.Conv2d(3, 2, 1)
    )
    graph = trace_channels(net, INPUT)
    assert outputs(graph, "a") == outputs(graph, "b") == inputs(graph, "c")
    assert len(set(outputs(graph, "a"))) == 3


def test_depthwise_norm_activation_and_pool_keep_channels():
    net = Net(
        lambda s, x: s.c(F.max_pool2d(F.relu(s.bn(s.dw(s.a(x)))), 2)),
        a=nn.Conv2d(1, 4, 1),
        dw=nn.Conv2d(4, 4, 3, groups=4, padding=1),
        bn=nn.BatchNorm2d(4),
        c=nn.Conv2d(4, 2, 1),
    )
    graph = trace_channels(net, INPUT)
    assert outputs(graph, "a") == inputs(graph, "dw") == outputs(graph, "bn") == inputs(graph, "c")
    assert layer_of(graph, "c").positions == 4


def test_gate_and_gated_channels_are_one():
    net = Net(
        lambda s, x: (lambda y: s.c(y * s.up(F.relu(s.down(y.mean([2, 3], keepdim=True)))).sigmoid()))(s.a(x)),
        a=nn.Conv2d(1, 4, 1),
        down=nn.Conv2d(4, 2, 1),
        up=nn.Conv2d(2, 4, 1),
        c=nn.Conv2d(4, 2, 1),
    )
    graph = trace_channels(net, INPUT)
    assert outputs(graph, "up") == outputs(graph, "a") == inputs(graph, "c")
    assert set(outputs(graph, "down")).isdisjoint(outputs(graph, "a"))


def shuffled(s, x):
    kept, rest = s.a(x).chunk(2, dim=1)
    both = torch.cat((kept, s.b(rest)), dim=1)
    batch, channels, height, width = both.shape
    both = both.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
    return s.c(both)


def test_chunk_cat_and_shuffle_carry_channels_along():
    net = Net(shuffled, a=nn.Conv2d(1, 6, 1), b=nn.Conv2d(3, 3, 1), c=nn.Conv2d(6, 2, 1))
    graph = trace_channels(net, INPUT)
    a, b = outputs(graph, "a"), outputs(graph, "b")
    assert inputs(graph, "b") == a[3:]
    assert inputs(graph, "c") == [a[0], b[0], a[1], b[1], a[2], b[2]]


def test_channels_with_other_readers_form_a_segment_of_their_own():
    net = Net(shuffled, a=nn.Conv2d(1, 6, 1), b=nn.Conv2d(3, 3, 1), c=nn.Conv2d(6, 2, 1))
    graph = trace_channels(net, INPUT)
    a = outputs(graph, "a")
    segments = list(graph.segments().values())
    assert a[:3] in segments
    assert a[3:] in segments


def test_flatten_gives_one_channel_to_each_of_its_features():
    net = Net(lambda s, x: s.fc(torch.flatten(s.a(x), 1)), a=nn.Conv2d(1, 3, 1), fc=nn.Linear(48, 2))
    graph = trace_channels(net, INPUT)
    assert inputs(graph, "fc") == [channel for channel in outputs(graph, "a") for _ in range(16)]


def test_image_and_logits_must_stay():
    net = Net(lambda s, x: s.b(s.a(x)), a=nn.Conv2d(1, 3, 1), b=nn.Conv2d(3, 2, 1))
    graph = trace_channels(net, INPUT)
    fixed = graph.fixed.nonzero().flatten().tolist()
    assert fixed == graph.inputs.tolist() + outputs(graph, "b")


def test_mask_over_all_channels_must_stay_and_ties_nothing():
    net = Net(
        lambda s, x: (lambda y: s.b(y * torch.sigmoid(s.mask(y))))(s.a(x)),
        a=nn.Conv2d(1, 3, 1),
        mask=nn.Conv2d(3, 1, 1),
        b=nn.Conv2d(3, 2, 1),
    )
    graph = trace_channels(net, INPUT)
    assert bool(graph.fixed[layer_of(graph, "mask").outputs].all())
    assert not graph.fixed[layer_of(graph, "a").outputs].any()


def along(s, x):
    return s.eca(F.adaptive_avg_pool2d(s.a(x), 1).transpose(1, 3)).transpose(1, 3)


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_along_the_channels_leaves_them_where_they_are(bias):
    eca = nn.Conv2d(1, 1, (1, 5), padding=(0, 2), bias=bias)
    a, c = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)
    net = Net(lambda s, x: s.c(along(s, x)), a=a, eca=eca, c=c)
    graph = trace_channels(net, INPUT)
    assert outputs(graph, "a") == inputs(graph, "eca") == outputs(graph, "eca") == inputs(graph, "c")
    assert len(set(outputs(graph, "a"))) == 4
    assert not graph.fixed[layer_of(graph, "a").outputs].any()
    cost = count(net, INPUT)
    assert (graph.macs, graph.params) == (cost.macs, cost.params)
    assert (cost.macs, cost.params) == (16 * 4 + 5 * 4 + 8, 4 + 5 + bias + 8)


@pytest.mark.parametrize(
    ("run", "layers", "named"),
    [
        (lambda s, x: torch.cumsum(s.a(x), 1), {}, "'cumsum'"),
        (lambda s, x: s.a(x).softmax(1), {}, "'softmax'"),
        (lambda s, x: F.interpolate(s.a(x), scale_factor=2), {}, "'interpolate'"),
        (lambda s, x: s.gn(s.a(x)), {"gn": nn.GroupNorm(1, 4)}, "GroupNorm"),
        (lambda s, x: s.a(x) * s.scale.weight, {"scale": nn.BatchNorm2d(4)}, "'scale.weight'"),
        (lambda s, x: s.g(s.a(x)), {"g": nn.Conv2d(4, 4, 1, groups=2)}, "'g'"),
        (lambda s, x: s.b(s.b(s.a(x))), {"b": nn.Conv2d(4, 4, 1)}, "'b'"),
        (lambda s, x: s.a(x).mean(1), {}, "mean"),
        (along, {"eca": nn.Conv2d(1, 1, (1, 3))}, "map"),
        (along, {"eca": nn.Conv2d(1, 2, (1, 3), padding=(0, 1))}, "map"),
        (lambda s, x: s.b(s.a(x).flatten(2).unflatten(1, (1, 4)).transpose(1, 3)), {"b": nn.Conv2d(16, 2, 1)}, "map"),
    ],
)
def test_what_is_not_known_is_an_error_that_names_it(run, layers, named):
    with pytest.raises(FertoolError) as caught:
        trace_channels(Net(run, a=nn.Conv2d(1, 4, 1), **layers), INPUT)
    assert named in caught.value.message


def test_branching_on_values_is_an_error_that_names_the_network():
    net = Net(lambda s, x: s.a(x) if x.sum() > 0 else x, a=nn.Conv2d(1, 4, 1))
    with pytest.raises(FertoolError, match="Net cannot be traced"):
        trace_channels(net, INPUT)


def test_modes_are_left_as_they_were():
    net = Net(lambda s, x: s.bn(s.a(x)), a=nn.Conv2d(1, 4, 1), bn=nn.BatchNorm2d(4))
    net.bn.eval()
    trace_channels(net, INPUT)
    assert net.training
    assert not net.bn.training
