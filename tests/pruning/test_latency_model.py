"""The latency model against machines whose cost is known."""

import math

import pytest
import torch

from fertool.config.pruning import SelectionConfig
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.surgery import resize
from fertool.models import create
from fertool.pruning import Constraints, Targets, learn_latency, plan
from fertool.pruning.latency_model import typical_latency
from fertool.spec import InputSpec


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return create(
        "micro_expnet", {"width_mult": 0.5}, InputSpec(size=32), ("angry", "happy", "sad")
    )


@pytest.fixture(scope="module")
def sizes(net):
    return find_groups(trace_channels(net[1])).as_map()


def machine(network, granularity, overhead=2e-7, misaligned=0.0):
    """Make what measures networks on a machine that works in multiples of `granularity` channels.

    Layers that read misaligned channels, no multiple of four, take `misaligned` seconds more for
    each of them.
    """

    def rounded(count):
        return granularity * math.ceil(count / granularity)

    def seconds(layer):
        made = rounded(len(layer.outputs))
        more = overhead + (misaligned * len(layer.inputs) if len(layer.inputs) % 4 else 0.0)
        if layer.kind == "dense":
            return more + layer.kernel_elements * layer.positions * (
                1e-11 * rounded(len(layer.inputs)) * made + 1e-10 * made
            )
        return more + 1e-10 * layer.kernel_elements * layer.positions * made

    whole = trace_channels(network)
    groups = find_groups(whole)

    def profile(sizes):
        graph = trace_channels(resize(network, whole, groups, sizes))
        measured = {layer.name: seconds(layer) for layer in graph.layers if layer.kind != "norm"}
        return {**measured, "": 1e-6}, graph

    return profile


@pytest.mark.parametrize("granularity", [1, 8, 16])
def test_the_model_finds_the_granularity_and_predicts_networks_that_were_not_measured(
    net, sizes, granularity
):
    profile = machine(net[1], granularity)
    model = learn_latency(sizes, profile)
    assert model.granularity == granularity
    for share in (0.9, 0.55, 0.3):
        seconds, graph = profile(
            {name: max(1, round(share * count)) for name, count in sizes.items()}
        )
        assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.02)


def test_the_model_predicts_what_misaligned_channels_cost(net, sizes):
    uneven = {name: count // 4 * 4 + 2 for name, count in sizes.items()}
    profile = machine(net[1], 8, misaligned=1e-7)
    model = learn_latency(uneven, profile)
    for more in (0, -2):
        seconds, graph = profile({name: count + more for name, count in uneven.items()})
        assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.02)


@pytest.mark.parametrize("target", [0.6, 0.5, 0.45, 0.4])
def test_a_budget_of_macs_leaves_no_depthwise_layer_misaligned(target):
    torch.manual_seed(0)
    spec, module = create("shufflenet_v2_x1_0", {}, InputSpec(size=48), ("angry", "happy", "sad"))
    made = plan(
        spec,
        module,
        Constraints(Targets(macs=target)),
        SelectionConfig(criterion="l1", round_to=16),
    )
    inner = [name for name in made.widths if "branch2" in name]
    assert any(made.widths_before[name] % 4 for name in inner)
    assert 0.95 * target < made.macs_ratio <= target
    assert all(made.widths[name] % 4 == 0 for name in inner)


@pytest.mark.parametrize("round_to", [1, 2, 4])
def test_the_search_and_the_plan_go_by_the_same_seconds(round_to):
    torch.manual_seed(0)
    spec, module = create("shufflenet_v2_x1_0", {}, InputSpec(size=32), ("angry", "happy", "sad"))
    table = typical_latency(trace_channels(module).layers)
    made = plan(
        spec,
        module,
        Constraints(Targets(latency=0.6), latency=table),
        SelectionConfig(criterion="l1", round_to=round_to),
    )
    assert 0.57 < made.seconds_ratio <= 0.6


def test_no_term_is_negative_and_noise_changes_little(net, sizes):
    noise, profile = torch.Generator().manual_seed(0), machine(net[1], 8)

    def noisy(wanted):
        seconds, graph = profile(wanted)
        factors = 1 + 0.05 * torch.randn(len(seconds), generator=noise)
        return {
            name: value * float(f)
            for (name, value), f in zip(seconds.items(), factors, strict=True)
        }, graph

    model = learn_latency(sizes, noisy)
    assert all(term >= 0 for terms in model.terms.values() for term in terms)
    seconds, graph = profile({name: max(1, count // 2) for name, count in sizes.items()})
    assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.05)


def test_a_budget_of_seconds_is_met_and_no_step_is_taken_that_saves_none(net, sizes):
    spec, module = net
    profile = machine(module, 16)
    model = learn_latency(sizes, profile)
    made = plan(
        spec, module, Constraints(Targets(latency=0.6), latency=model), SelectionConfig(round_to=1)
    )
    before, after = (
        sum(profile(widths)[0].values()) for widths in (made.widths_before, made.widths)
    )
    assert 0.55 < after / before < 0.61
    assert made.seconds_ratio == pytest.approx(after / before, rel=0.02)
    # Steps go by single channels, and still narrowed layers end at multiples of the granularity.
    ended = [
        made.widths[name] for name, count in made.widths_before.items() if made.widths[name] < count
    ]
    assert ended
    assert sum(width % 16 == 0 for width in ended) > 0.8 * len(ended)
