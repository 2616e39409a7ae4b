"""The latency model against machines whose cost is known."""

import math

import pytest
import torch

from fertool.models import build, create
from fertool.prune import PruneOptions, Targets, learn_latency, plan, trace_channels
from fertool.prune.latency import typical_latency
from fertool.spec import InputSpec


@pytest.fixture(scope="module")
def spec():
    return create("micro_expnet", {"width_mult": 0.5}, InputSpec(size=32), ("angry", "happy", "sad"))[0]


def machine(spec, grain, overhead=2e-7, ragged=0.0):
    """Make what measures networks on a machine that works in whole grains of channels.

    Layers take `ragged` seconds more for each channel that they read where these are no multiple of four.
    """

    def rounded(count):
        return grain * math.ceil(count / grain)

    def seconds(layer):
        made = rounded(len(layer.outputs))
        more = overhead + (ragged * len(layer.inputs) if len(layer.inputs) % 4 else 0.0)
        if layer.kind == "dense":
            return more + layer.taps * layer.positions * (1e-11 * rounded(len(layer.inputs)) * made + 1e-10 * made)
        return more + 1e-10 * layer.taps * layer.positions * made

    def profile(widths):
        with torch.device("meta"):
            module = build(spec, widths)
        graph = trace_channels(module, spec.input)
        measured = {layer.name: seconds(layer) for layer in graph.layers if layer.kind != "norm"}
        return {**measured, "": 1e-6}, graph

    return profile


@pytest.mark.parametrize("grain", [1, 8, 16])
def test_it_finds_the_grain_and_foretells_networks_that_it_has_not_seen(spec, grain):
    profile = machine(spec, grain)
    model = learn_latency(spec.widths, profile)
    assert model.grain == grain
    for share in (0.9, 0.55, 0.3):
        widths = {name: max(1, round(share * count)) for name, count in spec.widths.items()}
        seconds, graph = profile(widths)
        assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.02)


def test_it_foretells_what_widths_that_no_register_holds_take_more(spec):
    uneven = {name: count // 4 * 4 + 2 for name, count in spec.widths.items()}
    profile = machine(spec, 8, ragged=1e-7)
    model = learn_latency(uneven, profile)
    for more in (0, -2):
        seconds, graph = profile({name: count + more for name, count in uneven.items()})
        assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.02)


@pytest.mark.parametrize("target", [0.6, 0.5, 0.45, 0.4])
def test_fewer_macs_leave_no_depthwise_layer_with_channels_that_no_register_holds(target):
    torch.manual_seed(0)
    spec, module = create("shufflenet_v2_x1_0", {}, InputSpec(size=48), ("angry", "happy", "sad"))
    inner = [name for name in spec.widths if "branch2" in name]
    assert any(spec.widths[name] % 4 for name in inner)
    made = plan(spec, module, PruneOptions(Targets(macs=target), "l1", round_to=16))
    assert 0.95 * target < made.macs_ratio <= target
    assert all(made.widths[name] % 4 == 0 for name in inner)


@pytest.mark.parametrize("round_to", [1, 2, 4])
def test_the_search_and_the_plan_go_by_the_same_seconds(round_to):
    torch.manual_seed(0)
    spec, module = create("shufflenet_v2_x1_0", {}, InputSpec(size=32), ("angry", "happy", "sad"))
    table = typical_latency(trace_channels(module, spec.input).layers)
    made = plan(spec, module, PruneOptions(Targets(latency=0.6), "l1", round_to=round_to, latency=table))
    assert 0.57 < made.seconds_ratio <= 0.6


def test_no_term_is_negative_and_noise_does_little_harm(spec):
    noise, profile = torch.Generator().manual_seed(0), machine(spec, 8)

    def noisy(widths):
        seconds, graph = profile(widths)
        factors = 1 + 0.05 * torch.randn(len(seconds), generator=noise)
        return {name: value * float(f) for (name, value), f in zip(seconds.items(), factors, strict=True)}, graph

    model = learn_latency(spec.widths, noisy)
    assert all(term >= 0 for terms in model.terms.values() for term in terms)
    seconds, graph = profile({name: max(1, count // 2) for name, count in spec.widths.items()})
    assert model.seconds(graph) == pytest.approx(sum(seconds.values()), rel=0.05)


def test_a_budget_of_seconds_is_met_and_no_step_is_taken_that_saves_none(spec):
    torch.manual_seed(0)
    spec, module = create("micro_expnet", {"width_mult": 0.5}, InputSpec(size=32), ("angry", "happy", "sad"))
    profile = machine(spec, 16)
    model = learn_latency(spec.widths, profile)
    made = plan(spec, module, PruneOptions(Targets(latency=0.6), round_to=1, latency=model))
    before, after = (sum(profile(widths)[0].values()) for widths in (spec.widths, made.widths))
    assert 0.55 < after / before < 0.61
    assert made.seconds_ratio == pytest.approx(after / before, rel=0.02)
    # Steps go by single channels here, and still every narrowed layer ends at a multiple of the grain.
    ended = [made.widths[name] for name, count in spec.widths.items() if made.widths[name] < count]
    assert ended
    assert sum(width % 16 == 0 for width in ended) > 0.8 * len(ended)
