"""How many bits the weights of each channel get: the same for all, or an allocated budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.config.quantization import DEFAULT_ALLOCATION, QuantizeConfig
from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.spec import WEIGHT_BITS, Metrics
from fertool.workflows.targets import parse_target

if TYPE_CHECKING:
    from torch import Tensor

    from fertool.data.dataset import FaceDataset
    from fertool.hessian import Sensitivity
    from fertool.quant import AllocationProblem
    from fertool.spec import Spec
    from fertool.workflows.model import Model

ChannelBits = dict[str, tuple[int, ...]]
"""The bits of each output channel, or one number for all, by layer."""

SEARCH_IMAGES = 512
"""Validation images that an allocation tries bits on."""
_ANY_METRICS = Metrics("val", 3589, 1 / 3, (1 / 3, 2 / 3), 1 / 3)
"""Of the length that metrics have in a file, for networks that have none yet."""


def choose_bits(
    network: Model,
    planned: Spec,
    config: QuantizeConfig,
    sensitivity: Sensitivity | None,
    train: FaceDataset,
    val: FaceDataset,
    *,
    size_bytes: int,
    reporter: Reporter = SILENT,
) -> ChannelBits | None:
    """Return the bits of the weights of each layer, None where all have 8.

    An allocation measures divergences on the images of `train` and tries bits on those of `val`, if
    it needs to. `planned` is the spec of the quantized network with all weights of 8 bits, and the
    step that makes it. A `target_size` without unit is a ratio of `size_bytes`. Raises FertoolError
    for a budget that cannot be met.
    """
    if not config.is_mixed:
        if config.bits is None or planned.quant is None:
            return None
        return dict.fromkeys(planned.quant.weights, (config.bits,))

    problem = _allocation_problem(network, config, sensitivity)
    if config.average_bits is not None:
        budget, mean = "average_bits", config.average_bits
    else:
        budget, mean = "target_size", _average_bits_of_size(problem, planned, config, size_bytes)
    if mean > problem.max_bits:
        reporter.note(
            f"``{budget}``: {problem.max_bits} bits hold every weight; "
            f"``weight_range=full`` has {WEIGHT_BITS[-1]}"
        )
    # A larger budget than all weights of 8 bits is met by these.
    mean = min(mean, WEIGHT_BITS[-1])
    problem = _with_divergences(problem, network, config, train, reporter)
    return problem.by_layer(_allocate(problem, mean, network, config, val, reporter))


def _allocation_problem(
    network: Model, config: QuantizeConfig, sensitivity: Sensitivity | None
) -> AllocationProblem:
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import make_dynamic_problem, make_problem

    traces = None
    if sensitivity is not None:
        traces = {layer.name: layer.weight_trace for layer in sensitivity.layers}
    if isinstance(network.module, ProfileNetwork):
        return make_dynamic_problem(
            network.spec, network.module, traces, config.weight_limit, config.keep_float
        )
    return make_problem(
        network.spec, network.module, traces, config.weight_limit, config.keep_float
    )


def _with_divergences(
    problem: AllocationProblem,
    network: Model,
    config: QuantizeConfig,
    train: FaceDataset,
    reporter: Reporter,
) -> AllocationProblem:
    """Return the problem with the divergences that the allocation needs, if it needs any."""
    from fertool.models.profile_network import ProfileNetwork
    from fertool.quant import dynamic_divergences, load_allocation, weight_divergences

    if not load_allocation(config.allocation or DEFAULT_ALLOCATION).needs_divergences:
        return problem
    spec, module = network.spec, network.module
    with reporter.progress("divergences") as on_progress:
        if isinstance(module, ProfileNetwork):
            divergences = dynamic_divergences(spec, module, train, config, on_progress)
        else:
            divergences = weight_divergences(spec, module, train, config, on_progress)
    return replace(problem, divergences=divergences)


def _allocate(
    problem: AllocationProblem,
    average_bits: float,
    network: Model,
    config: QuantizeConfig,
    val: FaceDataset,
    reporter: Reporter,
) -> Tensor:
    """Return the bits of each channel, int64 [C]."""
    from fertool.quant import BitEvaluator, RoundedAccuracy, allocate, load_allocation

    name = config.allocation or DEFAULT_ALLOCATION
    # Preparing the images takes seconds.
    if not load_allocation(name).needs_images:
        return allocate(name, problem, average_bits)
    network.spec.require_static(f"given bits by ``allocation={name}``")
    images = val.balanced_subset(SEARCH_IMAGES, config.seed)
    accuracy = RoundedAccuracy(network.spec, network.module, problem, images, config.weight_limit)
    with reporter.progress("episodes") as on_progress:
        evaluator = BitEvaluator(accuracy, config.seed, on_progress)
        return allocate(name, problem, average_bits, evaluator)


def _average_bits_of_size(
    problem: AllocationProblem, planned: Spec, config: QuantizeConfig, size_bytes: int
) -> float:
    """Return the mean bits of a weight at which the file has the asked bytes.

    Raises FertoolError where that is below 2.
    """
    text = str(config.target_size)
    budget = parse_target("target_size", text, size_bytes) * size_bytes
    mean = _affordable_bits(problem, planned, budget)
    if mean < WEIGHT_BITS[0]:
        missing = (WEIGHT_BITS[0] - mean) * int(problem.weight_counts.sum()) / 8
        raise FertoolError(
            f"``target_size={text}``: at {WEIGHT_BITS[0]} bits a weight the file has about "
            f"{budget + missing:,.0f} bytes, not {budget:,.0f}",
            "ask for more, or prune the model first",
        )
    return mean


def _affordable_bits(problem: AllocationProblem, planned: Spec, budget: float) -> float:
    """Return the mean bits of a weight at which the file has `budget` bytes.

    Whatever the bits, all else in the file has the same size.
    """
    import torch

    from fertool.models import stored_size_bytes

    assert planned.quant is not None
    weight_counts = problem.weight_counts
    # Some channels of every number of bits, so that the file holds what any allocation may need.
    repeats = len(weight_counts) // len(WEIGHT_BITS) + 1
    every = torch.tensor(WEIGHT_BITS).repeat(repeats)[: len(weight_counts)]
    rules = {}
    stored: list[int] = []
    for name, bits in problem.by_layer(every).items():
        rules[name] = replace(planned.quant.weights[name], bits=bits)
        stored += rules[name].stored_bits(1)
    # Also what no bits are allocated for: the gate of a dynamic network.
    quant = replace(planned.quant, weights={**planned.quant.weights, **rules})
    size = stored_size_bytes(replace(planned, quant=quant, metrics=planned.metrics or _ANY_METRICS))
    stored_bits = int((torch.tensor(stored) * weight_counts).sum())
    return (8 * (budget - size) + stored_bits) / int(weight_counts.sum())
