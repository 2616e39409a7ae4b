import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from fertool.errors import FertoolError, UsageError
from fertool.graph.folding import fold_for_inference
from fertool.models import create
from fertool.quant import AllocationProblem, allocate, load_allocation, lower_bound, make_problem
from fertool.quant.knapsack import hull_steps, spend_remaining_bits
from fertool.registry import ALLOCATIONS
from fertool.spec import WEIGHT_BITS, InputSpec

CLASSES = ("angry", "happy", "sad")

CHECKED = [name for name in ALLOCATIONS.names() if not load_allocation(name).needs_images]


def problem_of(weights, traces, layers=None, seed=0):
    """Errors that fall by about a factor of four a bit, as rounding errors do."""
    generator = torch.Generator().manual_seed(seed)
    count = len(weights)
    factor = 0.25 + 0.1 * torch.rand(
        count, len(WEIGHT_BITS), generator=generator, dtype=torch.float64
    )
    layers = torch.arange(count) if layers is None else torch.tensor(layers)
    names = tuple(f"layer{index}" for index in range(int(layers.max()) + 1))
    problem = AllocationProblem(
        names,
        layers,
        torch.tensor(weights),
        torch.tensor(traces, dtype=torch.float64),
        factor.cumprod(1),
    )
    return replace(problem, divergences=problem.losses)


def brute_force(problem, budget):
    best = torch.inf
    for widths in itertools.product(WEIGHT_BITS, repeat=len(problem.weight_counts)):
        widths = torch.tensor(widths)
        if int((problem.weight_counts * widths).sum()) <= budget:
            best = min(best, problem.loss(widths))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [2.3, 3.0, 4.5, 6.2])
def test_optimal_is_between_the_best_there_is_and_its_bound(seed, bits):
    problem = problem_of([9, 9, 12, 12, 20], [1.0, 30.0, 0.1, 5.0, 2.0], seed=seed)
    widths = allocate("optimal", problem, bits)
    best = brute_force(problem, int(bits * 62 + 1e-6))
    assert problem.average_bits(widths) <= bits
    assert lower_bound(problem, bits) <= best + 1e-12
    assert best <= problem.loss(widths) + 1e-12
    # At most the one step that the budget cuts through is missing.
    steps = hull_steps(problem.items)
    assert (
        problem.loss(widths) - lower_bound(problem, bits)
        <= (steps.slopes * steps.costs).max() + 1e-12
    )


@pytest.mark.parametrize("name", CHECKED)
def test_channels_that_do_not_matter_get_the_rest_of_the_budget(name):
    problem = problem_of([16] * 40, [0.0] * 30 + [1.0] * 10, [0] * 20 + [1] * 20)
    for bits in (3.0, 6.0, 7.9):
        assert 0.99 * bits <= problem.average_bits(allocate(name, problem, bits)) <= bits + 1e-9


def test_nothing_gets_more_bits_than_its_largest_integer_needs():
    problem = replace(problem_of([16] * 40, [1.0] * 40), max_bits=7)
    for name in CHECKED:
        assert int(allocate(name, problem, 8.0).max()) == 7


def test_of_equal_channels_optimal_is_exactly_the_best():
    problem = problem_of([10] * 5, [1.0, 30.0, 0.1, 5.0, 2.0])
    for budget in range(100, 410, 70):
        assert problem.loss(allocate("optimal", problem, budget / 50)) == pytest.approx(
            brute_force(problem, budget)
        )


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("bits", [2.0, 2.5, 3.22, 5.7, 8.0])
def test_budgets_are_met_within_one_percent(name, bits):
    generator = torch.Generator().manual_seed(1)
    layers = [0] * 64 + [1] * 64 + [2] * 128 + [3] * 7
    weights = [9 if layer == 0 else 64 if layer < 3 else 128 for layer in layers]
    problem = problem_of(
        weights, torch.rand(len(layers), generator=generator).exp().tolist(), layers
    )
    widths = allocate(name, problem, bits)
    assert 0.99 * bits <= problem.average_bits(widths) <= bits + 1e-9
    assert set(widths.tolist()) <= set(WEIGHT_BITS)


def test_hawq_gives_whole_layers_the_same_bits_but_for_the_last_one():
    layers = [0] * 8 + [1] * 8 + [2] * 8
    problem = problem_of([16] * 24, [1.0] * 8 + [50.0] * 8 + [0.01] * 8, layers)
    widths = allocate("hawq", problem, 4.1)
    kinds = sorted(len(set(widths[problem.layers == layer].tolist())) for layer in range(3))
    assert kinds[:2] == [1, 1]
    means = [widths[problem.layers == layer].double().mean() for layer in (2, 0, 1)]
    assert means == sorted(means)
    assert problem.loss(allocate("optimal", problem, 4.1)) <= problem.loss(widths) + 1e-12


def test_uniform_mixes_two_neighbours_evenly():
    problem = problem_of([16] * 40, [1.0] * 40, [0] * 20 + [1] * 20)
    widths = allocate("uniform", problem, 3.25)
    assert sorted(set(widths.tolist())) == [3, 4]
    assert [int((widths[problem.layers == layer] == 4).sum()) for layer in (0, 1)] == [5, 5]


def test_filling_uses_the_budget_from_above_and_from_below():
    problem = problem_of([10, 20, 30, 40], [1.0, 2.0, 3.0, 4.0])
    for start in (2, 8):
        widths = spend_remaining_bits(problem.items, torch.full((4,), start), 400)
        assert 391 <= int((problem.weight_counts * widths).sum()) <= 400


def test_a_budget_below_two_bits_and_an_unknown_name():
    problem = problem_of([10], [1.0])
    with pytest.raises(FertoolError, match=r"1\.50 bits a weight"):
        allocate("optimal", problem, 1.5)
    with pytest.raises(UsageError, match="``allocation``"):
        allocate("best", problem, 4)


def test_folding_batch_norm_changes_neither_traces_nor_losses():
    """The loss that a rounding error causes is the same number, with folded weights or not."""
    torch.manual_seed(0)
    spec, module = create("resnet18", {"width_mult": 0.125}, InputSpec(1, 32), CLASSES)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 3)
            nn.init.uniform_(part.running_var, 0.5, 3)
    module.eval()
    layers = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    traces = {name: torch.rand(len(layer.weight)).tolist() for name, layer in layers.items()}
    problem = make_problem(spec, module, traces)
    assert set(problem.names) == set(layers)
    graph_module = fold_for_inference(module)
    for index, name in enumerate(problem.names):
        before, after = (
            layers[name].weight.detach(),
            graph_module.get_parameter(f"{name}.weight").detach(),
        )
        own = problem.layers == index
        factor = (after.flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)).double()
        mean = torch.tensor(traces[name], dtype=torch.float64) / before[0].numel()
        assert torch.allclose(problem.traces[own], mean / factor.square(), rtol=1e-5)
        assert (problem.weight_counts[own] == before[0].numel()).all()
    assert (problem.errors.diff(dim=1) <= 0).all()


ANOTHER = """
import torch

from fertool.quant import Allocation


class Member(Allocation):
    \"\"\"Two bits for all, whatever the budget.\"\"\"

    needs_traces = False

    def allocate(self, problem, average_bits, evaluator):
        return torch.full_like(problem.weight_counts, 2)
"""


def test_an_allocation_of_another_package_gives_the_bits(install):
    install("fertool.allocations", "least", ANOTHER)
    assert not ALLOCATIONS.attribute("least", "needs_traces", True)
    assert allocate("least", problem_of([16] * 4, [1.0] * 4), 5.0).tolist() == [2] * 4
