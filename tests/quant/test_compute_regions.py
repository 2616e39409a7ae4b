"""The assignment of a network's nodes to integers and floats, by made-up kernel times."""

import itertools
import random

import pytest

from fertool.errors import UsageError
from fertool.graph.folding import fold_for_inference
from fertool.models import create
from fertool.models.float_prefix import plan_quantizers
from fertool.quant import KernelTimes, Seconds, choose_regions, kernels_needed, shipped_times
from fertool.quant.minimum_cut import INFINITE, CutGraph
from fertool.runtime.kernel_timing import KINDS
from fertool.spec import InputSpec

INPUT = InputSpec(1, 48)


def network(arch="micro_expnet"):
    _, module = create(arch, {}, INPUT, ("a", "b"))
    return fold_for_inference(module.eval())


def times(floats=1.0, integers=1.0, boundary=1.0):
    """Every kernel takes as long as all others."""
    rows = {}
    for kind in KINDS:
        sizes = 3 if kind.startswith("conv") else 2
        rows[kind] = [((8,) * sizes, floats, integers)]
    rows["boundary"] = [((8, 8), boundary, boundary)]
    return _Constant("a processor", "a runtime", rows)


class _Constant(KernelTimes):
    def seconds(self, kernel):
        _, floats, integers = self.rows[kernel[0]][0]
        return Seconds(floats, integers)


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_is_the_cheapest_of_all_assignments(seed):
    draw = random.Random(seed)
    names = range(6)
    at_sink = {name: draw.choice([0, draw.random()]) for name in names}
    at_source = {name: draw.choice([0, draw.random(), INFINITE]) for name in names}
    parted = {}
    for pair in itertools.permutations(names, 2):
        if draw.random() < 0.4:
            parted[pair] = draw.random()
    graph = CutGraph()
    for name in names:
        graph.cost_if_at_sink(name, at_sink[name])
        graph.cost_if_at_source(name, at_source[name])
    for (first, second), cost in parted.items():
        graph.cost_if_parted(first, second, cost)

    def cost_of(chosen):
        total = sum(at_source[name] if name in chosen else at_sink[name] for name in names)
        crossing = [value for (a, b), value in parted.items() if a in chosen and b not in chosen]
        return total + sum(crossing)

    subsets = itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(7))
    assert cost_of(graph.source_side()) == pytest.approx(
        min(cost_of(set(subset)) for subset in subsets)
    )


def test_slow_integers_leave_a_network_of_floats_and_fast_ones_none():
    net = network()
    slow = choose_regions(net, INPUT, times(integers=2))
    assert slow.float_nodes == set(net.graph.by_name)
    assert slow.seconds == slow.floats_s
    fast = choose_regions(net, INPUT, times(integers=0.01, boundary=0.01))
    assert not plan_quantizers(net, INPUT, (), fast.float_nodes).float_layers
    assert fast.floats_s > 5 * fast.seconds


def test_boundaries_that_cost_more_than_a_region_gains_are_not_crossed():
    net = network("mobilenet_v3_small")
    cheap = choose_regions(net, INPUT, times(integers=0.5, boundary=0.01))
    dear = choose_regions(net, INPUT, times(integers=0.5, boundary=1000))
    assert plan_quantizers(net, INPUT, (), cheap.float_nodes).points
    assert cheap.seconds < cheap.floats_s
    # The image is made of integers, and logits are floats: one region without a boundary is left.
    for regions in (cheap, dear):
        assert regions.seconds <= regions.floats_s
    assert dear.seconds < 1000


def test_layers_that_are_kept_float_get_no_integers_around_them_for_nothing():
    net = network()
    every = choose_regions(net, INPUT, times(integers=0.01, boundary=10), keep_float=["*"])
    assert every.float_nodes == set(net.graph.by_name)
    with pytest.raises(UsageError, match="no layer has this name"):
        choose_regions(net, INPUT, times(), keep_float=["nose"])


@pytest.mark.parametrize("arch", ["micro_expnet", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_the_shipped_table_has_every_kernel_and_no_network_gets_slower_by_it(arch):
    net, table = network(arch), shipped_times()
    assert table.processor
    assert table.runtime.startswith("onnxruntime")
    for kernel in kernels_needed(net, INPUT):
        seconds = table.seconds(kernel)
        assert 0 < seconds.floats < 0.1
        assert 0 < seconds.integers < 0.1
    regions = choose_regions(net, INPUT, table)
    assert 0 < regions.seconds <= regions.floats_s


def test_times_between_measured_sizes_lie_between_their_times():
    table = KernelTimes("p", "r", {"add": [((8, 4), 1.0, 4.0), ((32, 4), 4.0, 4.0)]})
    assert table.seconds(("add", (8, 4))) == Seconds(1.0, 4.0)
    middle = table.seconds(("add", (16, 4)))
    assert (middle.floats, middle.integers) == pytest.approx((2.0, 4.0))
    beyond = table.seconds(("add", (128, 8)))
    # One side alone was measured: in proportion to it.
    assert (beyond.floats, beyond.integers) == pytest.approx((32.0, 8.0))
