import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, captured
from torch import nn

from fertool import cost
from fertool.errors import FertoolError
from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.graph.counting import total_macs
from fertool.graph.groups import find_groups
from fertool.spec import InputSpec

INPUT = InputSpec(size=4)


def graph_of(run, **layers):
    return trace_channels(captured(Net(run, **layers), (1, 4, 4)))


def outputs(graph, name):
    return graph.by_name[name].outputs.tolist()


def inputs(graph, name):
    return graph.by_name[name].inputs.tolist()


def test_residual_addition_merges_channels_in_pairs():
    graph = graph_of(
        lambda s, x: s.c(s.a(x) + s.b(x)),
        a=nn.Conv2d(1, 3, 3, padding=1),
        b=nn.Conv2d(1, 3, 1),
        c=nn.Conv2d(3, 2, 1),
    )
    assert outputs(graph, "a") == outputs(graph, "b") == inputs(graph, "c")
    assert len(set(outputs(graph, "a"))) == 3


def test_depthwise_norm_activation_and_pool_keep_channels():
    graph = graph_of(
        lambda s, x: s.c(F.max_pool2d(F.relu(s.bn(s.dw(s.a(x)))), 2)),
        a=nn.Conv2d(1, 4, 1),
        dw=nn.Conv2d(4, 4, 3, groups=4, padding=1),
        bn=nn.BatchNorm2d(4),
        c=nn.Conv2d(4, 2, 1),
    )
    assert outputs(graph, "a") == inputs(graph, "dw") == outputs(graph, "bn") == inputs(graph, "c")
    assert graph.by_name["c"].positions == 4


def test_the_channels_of_a_group_are_one_with_what_the_group_makes():
    graph = graph_of(
        lambda s, x: s.c(s.g(s.a(x))),
        a=nn.Conv2d(1, 4, 1),
        g=nn.Conv2d(4, 6, 1, groups=2),
        c=nn.Conv2d(6, 2, 1),
    )
    one, other = sorted(set(outputs(graph, "a")))
    assert outputs(graph, "a") == inputs(graph, "g") == [one, one, other, other]
    assert outputs(graph, "g") == inputs(graph, "c") == [one, one, one, other, other, other]
    assert graph.by_name["g"].params == 4 * 6 // 2 + 6


def test_gate_and_gated_channels_are_one():
    graph = graph_of(
        lambda s, x: (
            lambda y: s.c(y * s.up(F.relu(s.down(y.mean([2, 3], keepdim=True)))).sigmoid())
        )(s.a(x)),
        a=nn.Conv2d(1, 4, 1),
        down=nn.Conv2d(4, 2, 1),
        up=nn.Conv2d(2, 4, 1),
        c=nn.Conv2d(4, 2, 1),
    )
    assert outputs(graph, "up") == outputs(graph, "a") == inputs(graph, "c")
    assert set(outputs(graph, "down")).isdisjoint(outputs(graph, "a"))


def shuffled(s, x):
    kept, rest = s.a(x).chunk(2, dim=1)
    both = torch.cat((kept, s.b(rest)), dim=1)
    batch, channels, height, width = both.shape
    both = (
        both.view(batch, 2, channels // 2, height, width)
        .transpose(1, 2)
        .reshape(batch, channels, height, width)
    )
    return s.c(both)


def a_shuffle():
    return graph_of(shuffled, a=nn.Conv2d(1, 6, 1), b=nn.Conv2d(3, 3, 1), c=nn.Conv2d(6, 2, 1))


def test_chunk_cat_and_shuffle_carry_channels_along():
    graph = a_shuffle()
    a, b = outputs(graph, "a"), outputs(graph, "b")
    assert inputs(graph, "b") == a[3:]
    assert inputs(graph, "c") == [a[0], b[0], a[1], b[1], a[2], b[2]]


def test_channels_with_other_readers_form_a_segment_of_their_own():
    graph = a_shuffle()
    a = outputs(graph, "a")
    segments = list(graph.segments().values())
    assert a[:3] in segments
    assert a[3:] in segments


def test_parts_of_a_split_are_segments_even_where_the_same_layers_read_them():
    graph = graph_of(
        lambda s, x: (lambda parts: s.c(torch.cat((parts[0].relu(), parts[1]), 1)))(
            torch.split(s.a(x), (2, 4), 1)
        ),
        a=nn.Conv2d(1, 6, 1),
        c=nn.Conv2d(6, 2, 1),
    )
    (parts,) = graph.parts.values()
    assert [part.tolist() for part in parts] == [outputs(graph, "a")[:2], outputs(graph, "a")[2:]]
    assert {tuple(part.tolist()) for part in parts} <= {
        tuple(members) for members in graph.segments().values()
    }


def test_flatten_gives_one_channel_to_each_of_its_features():
    graph = graph_of(
        lambda s, x: s.fc(torch.flatten(s.a(x), 1)), a=nn.Conv2d(1, 3, 1), fc=nn.Linear(48, 2)
    )
    assert inputs(graph, "fc") == [channel for channel in outputs(graph, "a") for _ in range(16)]


def test_image_and_logits_must_stay():
    graph = graph_of(lambda s, x: s.b(s.a(x)), a=nn.Conv2d(1, 3, 1), b=nn.Conv2d(3, 2, 1))
    fixed = graph.fixed.nonzero().flatten().tolist()
    assert fixed == graph.inputs.tolist() + outputs(graph, "b")


@pytest.mark.parametrize("is_written_out", [False, True])
def test_mask_over_all_channels_must_stay_and_ties_nothing(is_written_out):
    def run(s, x):
        y = s.a(x)
        mask = torch.sigmoid(s.mask(y))
        return s.b(y * (mask.expand_as(y) if is_written_out else mask))

    graph = graph_of(
        run,
        a=nn.Conv2d(1, 3, 1),
        mask=nn.Conv2d(3, 1, 1),
        b=nn.Conv2d(3, 2, 1),
    )
    assert bool(graph.fixed[graph.by_name["mask"].outputs].all())
    assert not graph.fixed[graph.by_name["a"].outputs].any()


def along(s, x):
    return s.eca(F.adaptive_avg_pool2d(s.a(x), 1).transpose(1, 3)).transpose(1, 3)


@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_along_the_channels_leaves_them_where_they_are(bias):
    eca = nn.Conv2d(1, 1, (1, 5), padding=(0, 2), bias=bias)
    a, c = nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)
    network = captured(Net(lambda s, x: s.c(along(s, x)), a=a, eca=eca, c=c), (1, 4, 4))
    graph = trace_channels(network)
    assert (
        outputs(graph, "a") == inputs(graph, "eca") == outputs(graph, "eca") == inputs(graph, "c")
    )
    assert len(set(outputs(graph, "a"))) == 4
    assert not graph.fixed[graph.by_name["a"].outputs].any()
    counted = cost.count(network, INPUT)
    assert (graph.macs, graph.params) == (counted.macs, counted.params)
    assert (counted.macs, counted.params) == (16 * 4 + 5 * 4 + 8, 4 + 5 + bias + 8)


def test_a_parameter_for_each_channel_is_one_with_it():
    graph = graph_of(
        lambda s, x: s.c(s.a(x) * s.gamma + s.beta), a=nn.Conv2d(1, 4, 1, bias=False),
        gamma=nn.Parameter(torch.ones(4, 1, 1)), beta=nn.Parameter(torch.zeros(1)),
        c=nn.Conv2d(4, 2, 1),
    )  # fmt: skip
    assert outputs(graph, "gamma") == outputs(graph, "a")
    assert not graph.fixed[graph.by_name["a"].outputs].any()
    assert graph.params == 4 + 4 + 1 + 10


@pytest.mark.parametrize(
    ("run", "layers", "node", "reason"),
    [
        (lambda s, x: s.a(x).softmax(1), {}, "softmax", "softmax does to channels is not known"),
        (lambda s, x: (lambda y: y @ y.mT)(s.a(x).flatten(2)), {}, "matmul", "matmul does"),
        (lambda s, x: F.normalize(s.a(x)), {}, "normalize", "normalize does"),
        (lambda s, x: s.gn(s.a(x)), {"gn": nn.GroupNorm(2, 4)},
         "gn", "normalizes over the channels"),
        (lambda s, x: s.ln(s.a(x).movedim(1, 3)), {"ln": nn.LayerNorm(4)},
         "ln", "normalizes over the channels"),
        (lambda s, x: s.bn(s.a(x).transpose(1, 2)), {"bn": nn.BatchNorm2d(4)},
         "bn", "different channels"),
        (lambda s, x: s.mix(s.a(x).flatten(2)), {"mix": nn.Linear(16, 5)},
         "mix", "different channels"),
        (lambda s, x: s.a(x).mean(1), {}, "mean", "over the channels"),
        (lambda s, x: s.a(x).amax((1, 2)), {}, "amax", "over the channels"),
        (lambda s, x: s.a(x)[:, 2], {}, "select", "single channels"),
        (lambda s, x: s.a(x)[:, ::2], {}, "slice", "single channels"),
        (lambda s, x: s.a(x).roll(1, 1), {}, "roll", "single channels"),
        (lambda s, x: torch.stack(s.a(x).unbind(1)[:2], 1), {}, "unbind", "single channels"),
        (lambda s, x: F.pad(s.a(x), (0, 0, 0, 0, 1, 1)), {}, "pad", "along the channels"),
        (lambda s, x: s.a(x).reshape(len(x), 2, 2, 16), {}, "reshape", "along several axes"),
        (lambda s, x: s.t(s.a(x)), {"t": nn.ConvTranspose2d(4, 4, 1, groups=2)},
         "t", "a transposed convolution in"),
        (along, {"eca": nn.Conv2d(1, 1, (1, 3))}, "eca", "different channels"),
        (along, {"eca": nn.Conv2d(1, 2, (1, 3), padding=(0, 1))}, "eca", "different channels"),
    ],
)  # fmt: skip
def test_where_the_effect_is_not_known_channels_stay_and_the_node_is_named(
    run, layers, node, reason
):
    layers = {"free": nn.Conv2d(1, 3, 1), "a": nn.Conv2d(3, 4, 1), **layers}
    net = Net(lambda s, x: s.head(run(s, s.free(x)).flatten(1)), **layers)
    with torch.no_grad():
        net.head = nn.LazyLinear(3)
        net(torch.zeros(1, 1, 4, 4))
    network = captured(net, (1, 4, 4))
    graph = trace_channels(network)
    assert list(graph.fixing_nodes) == [node]
    assert reason in graph.fixing_nodes[node]
    assert graph.fixed[graph.by_name["a"].outputs].all()
    # What lies before is free, and what everything costs is known all the same.
    assert find_groups(graph).names == ("free",)
    counted = cost.count(network, INPUT)
    assert (graph.macs, graph.params) == (counted.macs, counted.params)


def changed_through_a_view(s, x):
    y = s.a(x)
    y[:, :1] += x
    return y.mean((2, 3))


@pytest.mark.parametrize(
    ("run", "layers", "named"),
    [
        (lambda s, x: torch.cumsum(s.a(x), 1), {}, "'cumsum'"),
        (lambda s, x: s.b(s.b(s.a(x))), {"b": nn.Conv2d(4, 4, 1)}, "'b' runs more than once"),
        (lambda s, x: s.a(x) if x.sum() > 0 else x, {}, "'gt'"),
        (changed_through_a_view, {}, "changed in place through a view"),
    ],
)
def test_what_is_not_in_the_table_is_an_error_that_names_it(run, layers, named):
    with pytest.raises(FertoolError) as caught:
        capture(Net(run, a=nn.Conv2d(1, 4, 1), **layers), (1, 4, 4))
    assert named in caught.value.message


@pytest.mark.parametrize(
    "run",
    [
        lambda x, y: torch.add(x, y, alpha=2),
        lambda x, y: torch.sub(y, x, alpha=0.5),
        lambda x, y: x.add(3, alpha=2) * y,
        lambda x, y: (x.flatten(2).movedim(1, 2) @ y.flatten(2)).movedim((0, 2), (0, 1)),
    ],
)
@torch.no_grad()
def test_the_graph_computes_what_the_module_computes(run):
    net = Net(lambda s, x: run(s.a(x), s.b(x)), a=nn.Conv2d(1, 4, 1), b=nn.Conv2d(1, 4, 1))
    images = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(captured(net, (1, 4, 4))(images), net(images))


def test_modes_are_left_as_they_were():
    net = Net(lambda s, x: s.bn(s.a(x)), a=nn.Conv2d(1, 4, 1), bn=nn.BatchNorm2d(4))
    net.bn.eval()
    capture(net, (1, 4, 4))
    assert net.training
    assert not net.bn.training
    assert torch.equal(net.bn.running_mean, torch.zeros(4))


def test_tracing_needs_no_values_and_changes_nothing():
    network = captured(
        nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), (1, 4, 4)
    ).to("meta")
    graph = trace_channels(network.train())
    assert inputs(graph, "2") == outputs(graph, "0")
    assert network.training


def test_rows_joined_with_the_images_count_as_often_as_they_are_multiplied():
    def run(s, x):
        rows = x.reshape(-1, 1, 4)
        return s.head(s.embed(rows).reshape(-1, 4, 8).mean(1))

    network = captured(Net(run, embed=nn.Linear(4, 8), head=nn.Linear(8, 7)), (1, 4, 4))
    assert total_macs(network) == trace_channels(network).macs == 4 * 4 * 8 + 8 * 7


def test_windows_in_the_place_of_images_are_one_error():
    def run(s, x):
        maps = s.stem(x).permute(0, 2, 3, 1)
        windows = maps.reshape(-1, 2, 2, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        return s.head(s.embed(windows).mean(1).reshape(-1, 4, 8).mean(1))

    layers = {"stem": nn.Conv2d(1, 8, 1), "embed": nn.Linear(8, 8), "head": nn.Linear(8, 7)}
    with pytest.raises(FertoolError, match="does not treat each image by itself"):
        captured(Net(run, **layers), (1, 4, 4))
