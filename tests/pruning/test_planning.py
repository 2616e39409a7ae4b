import pytest
import torch
from torch import nn

from fertool.config.pruning import SelectionConfig
from fertool.cost import count
from fertool.data import FaceDataset
from fertool.errors import FertoolError, UsageError
from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.surgery import remove_channels, resize
from fertool.models import create
from fertool.pruning import Constraints, Targets, plan, prune
from fertool.pruning.budget import CostModel
from fertool.pruning.criterion import Scores, load_criterion
from fertool.pruning.latency_model import NO_LATENCY
from fertool.pruning.planning import make_plan
from fertool.spec import InputSpec

INPUT = InputSpec(size=16)
CLASSES = ("angry", "happy", "sad")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create("micro_expnet", {"width_mult": 0.25}, InputSpec(size=32), CLASSES)


def conv(inputs, outputs, kernel=1, **options):
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Mixed(nn.Module):
    """Residual sum, depthwise, dense concatenation, a split and a flatten."""

    def __init__(self, stream=16, grown=12, hidden=40, quarter=8):
        super().__init__()
        self.stem = conv(1, stream, 3, stride=2)
        self.expand, self.filter = conv(stream, hidden), conv(hidden, hidden, 3, groups=hidden)
        self.project = conv(hidden, stream)
        self.grow = conv(stream, grown, 3)
        self.trunk = conv(stream + grown, 4 * quarter, 3)
        self.parts = nn.ModuleList(conv(quarter, quarter, 3) for _ in range(4))
        self.fc = nn.Linear(4 * quarter * 16, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.project(self.filter(self.expand(x)))
        pieces = torch.chunk(self.trunk(torch.cat((x, self.grow(x)), 1)), 4, 1)
        y, made = 0, []
        for index, part in enumerate(self.parts):
            y = part(pieces[index] + y)
            made.append(y)
        return self.fc(nn.functional.max_pool2d(torch.cat(made, 1), 2).flatten(1))


WIDTHS = {"stem.0": 16, "expand.0": 40, "grow.0": 12, "trunk.0": 8, "parts.3.0": 8}


def captured(module):
    return capture(module.eval(), (1, 16, 16)).network((1, 16, 16))


@pytest.fixture
def mixed(randomise_norms):
    torch.manual_seed(0)
    return captured(randomise_norms(Mixed())).double()


def pruned(network, targets, round_to=4, scores=None):
    graph = trace_channels(network)
    scores = (
        load_criterion("l1").score(network, graph, None, InputSpec()) if scores is None else scores
    )
    made, skeleton, smaller = make_plan(network, graph, scores, targets, round_to)
    return made, remove_channels(network, graph, skeleton, smaller, made.kept)


@pytest.mark.parametrize("round_to", [1, 4])
def test_removing_equals_zeroing_in_a_network_of_no_known_family(mixed, zero_removed, round_to):
    made, smaller = pruned(mixed, Targets(macs=0.3), round_to)
    assert made.widths_before == WIDTHS
    assert made.widths["stem.0"] < 16
    assert made.widths["trunk.0"] < 8
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            smaller(images), zero_removed(mixed, made)(images), atol=1e-9, rtol=0
        )


def test_channels_of_no_importance_leave_no_trace(mixed):
    dead = torch.randperm(40, generator=torch.Generator().manual_seed(2))[:20]
    with torch.no_grad():
        for block in ("expand", "filter"):
            for name in ("0.weight", "1.weight", "1.bias"):
                mixed.get_parameter(f"{block}.{name}")[dead] = 0
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    made, smaller = pruned(mixed, Targets(macs=0.95))
    assert made.widths == {**WIDTHS, "expand.0": made.widths["expand.0"]}
    assert set(range(40)) - set(made.kept["expand.0"]) <= set(dead.tolist())
    with torch.no_grad():
        torch.testing.assert_close(smaller(images), mixed(images), atol=1e-12, rtol=0)


def test_the_original_is_untouched_and_the_result_is_the_same_each_time(mixed):
    before = {name: tensor.clone() for name, tensor in mixed.state_dict().items()}
    (first, one), (second, two) = pruned(mixed, Targets(macs=0.5)), pruned(mixed, Targets(macs=0.5))
    assert first == second
    assert all(
        torch.equal(tensor, two.state_dict()[name]) for name, tensor in one.state_dict().items()
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in mixed.state_dict().items())
    one.fc.weight.data.zero_()
    assert torch.equal(mixed.fc.weight, before["fc.weight"])


@pytest.mark.parametrize(
    "targets", [Targets(params=0.5), Targets(macs=0.6, params=0.5), Targets(macs=0.4, params=0.9)]
)
def test_every_target_is_met(mixed, targets):
    made, smaller = pruned(mixed, targets)
    assert made.macs_ratio <= (targets.macs or 1)
    assert made.params_ratio <= (targets.params or 1)
    assert sum(p.numel() for p in smaller.parameters()) == made.params


@pytest.mark.parametrize("round_to", [1, 4])
def test_nothing_that_fits_is_left_out(mixed, round_to):
    made, _ = pruned(mixed, Targets(macs=0.5), round_to)
    graph = trace_channels(mixed)
    groups = find_groups(graph)
    for name, width in made.widths.items():
        if width < WIDTHS[name]:
            wider = resize(
                mixed, graph, groups, {**made.widths, name: min(width + round_to, WIDTHS[name])}
            )
            assert trace_channels(wider).macs > 0.5 * made.macs_before


def test_a_target_below_the_floors_is_an_error_with_the_smallest_ratio(mixed):
    with pytest.raises(
        FertoolError, match=r"smallest reachable .* MACs at 0\.\d+ .* 0\.01 was asked.*trunk"
    ) as caught:
        pruned(mixed, Targets(macs=0.01))
    assert "``round_to``" in caught.value.hint


class Kept(nn.Module):
    """A layer whose channels meet in a softmax, and one whose channels are independent."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 3, 16),
        )

    def forward(self, x):
        return self.c(self.b(self.a(x).softmax(1))).flatten(1)


def test_channels_that_an_operator_compares_stay():
    network = captured(Kept())
    made, smaller = pruned(network, Targets(macs=0.8), round_to=1)
    assert made.widths.keys() == {"b"}
    assert made.widths["b"] < 8
    assert smaller.graph.channels["a"] == 8


class Closed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 16)

    def forward(self, x):
        return self.b(self.a(x).softmax(1)).flatten(1)


def test_the_error_for_a_network_without_prunable_layers_names_the_reasons():
    with pytest.raises(
        FertoolError, match=r"no layer .* can be pruned: softmax: what softmax does to channels"
    ):
        pruned(captured(Closed()), Targets(macs=0.5))


def test_widths_whose_positions_no_channel_fits_are_left_out():
    torch.manual_seed(0)
    spec, module = create("shufflenet_v2_x0_5", {}, InputSpec(), CLASSES)
    result = prune(spec, module, Constraints(Targets(macs=0.6)), SelectionConfig(round_to=8))
    # Eight shuffles route the 48 channels of a half so that 32 or 24 survivors cannot replace them.
    assert result.plan.widths["stage3.0.branch1.2"] in (48, 40, 16, 8)
    assert 0.54 <= result.plan.macs_ratio <= 0.6


@pytest.mark.parametrize("arch", ["ean", "eff_resnet18", "micro_expnet"])
def test_costs_of_other_widths_are_known_without_building_them(arch):
    spec, network = create(arch, {}, InputSpec(), CLASSES)
    graph = trace_channels(network)
    groups = find_groups(graph)
    lower = {name: size // 2 + 1 for name, size in groups.as_map().items()}
    widths = torch.tensor(list(lower.values()), dtype=torch.float64)
    known = CostModel.from_graph(graph, groups, NO_LATENCY).costs(widths, torch.zeros_like(widths))[
        :, 0
    ]
    narrow = resize(network, graph, groups, lower)
    counted = count(narrow, spec.input)
    stored = sum(
        tensor.numel() for tensor in narrow.state_dict().values() if tensor.is_floating_point()
    )
    torch.testing.assert_close(
        known,
        torch.tensor(
            [counted.macs, counted.params, stored, 0, sum(lower.values())], dtype=torch.float64
        ),
    )


def test_the_plan_by_taylor_scores_is_what_prune_applies():
    torch.manual_seed(0)
    spec, module = create("micro_expnet", {"width_mult": 0.5}, INPUT, CLASSES)
    images = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8)
    faces = FaceDataset(images, torch.arange(8) % 3, CLASSES, "train", "")
    constraints = Constraints(Targets(params=0.7))
    selection = SelectionConfig(criterion="taylor", round_to=8, reconstruct=False)
    result = prune(spec, module, constraints, selection, faces)
    assert plan(spec, module, constraints, selection, faces) == result.plan
    assert 0.63 <= result.plan.params_ratio <= 0.7


@pytest.mark.parametrize(
    ("targets", "options", "named"),
    [
        (Targets(macs=0.5), {"criterion": "l3"}, "``criterion`` 'l3'"),
        (Targets(macs=0.5), {"criterion": "taylor"}, "``criterion=taylor``"),
        (Targets(macs=0.5), {"round_to": 0}, "``round_to=0``"),
        (Targets(latency=0.5), {}, "``target_latency=0.5``"),
    ],
)
def test_options_without_sense_name_the_option(targets, options, named):
    spec, module = create("micro_expnet", {"width_mult": 0.5}, InputSpec(), CLASSES)
    with pytest.raises(UsageError) as caught:
        plan(spec, module, Constraints(targets), SelectionConfig(**options))
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        ({"macs": 1.5}, "``target_flops=1.5``"),
        ({"params": 0.0}, "``target_params=0``"),
        ({}, "no target"),
    ],
)
def test_targets_without_sense_name_the_option(targets, named):
    with pytest.raises(UsageError) as caught:
        Targets(**targets)
    assert named in caught.value.message


def test_widths_stay_above_their_floors(net):
    spec, module = net
    free = plan(spec, module, Constraints(Targets(macs=0.5)), SelectionConfig(round_to=1))
    lowered = max(free.widths, key=lambda name: free.widths_before[name] - free.widths[name])
    least = free.widths_before[lowered] - 3
    held = plan(
        spec,
        module,
        Constraints(Targets(macs=0.5), floors={lowered: least}),
        SelectionConfig(round_to=1),
    )
    assert held.widths[lowered] >= least > free.widths[lowered]
    assert held.macs_ratio <= 0.5


class Funnel(nn.Module):
    """Two pairs of layers with equal MACs, one on a large map, one with many weights."""

    def __init__(self):
        super().__init__()
        self.stem = conv(1, 8)
        self.open, self.shut = conv(8, 16), conv(16, 8)
        self.grow, self.sum = conv(8, 256), conv(256, 8)
        self.fc = nn.Linear(8 * 16, 3)

    def forward(self, x):
        x = self.shut(self.open(self.stem(x)))
        return self.fc(self.sum(self.grow(nn.functional.avg_pool2d(x, 4))).flatten(1))


def test_of_equal_multiply_accumulates_those_go_first_that_take_longer():
    network = captured(Funnel())
    alike = Scores(
        torch.ones(len(trace_channels(network).fixed), dtype=torch.float64), additive=False
    )
    made, _ = pruned(network, Targets(macs=0.75), 1, alike)
    assert made.widths["grow.0"] / 256 < 0.9 * made.widths["open.0"] / 16
    assert 0.72 <= made.macs_ratio <= 0.75
