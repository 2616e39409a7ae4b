"""Quantization of a dynamic network: each profile by itself, and the weights of its gate.

The profiles have weights of their own, so that none of their integers are the same. Bits are
allocated over all profiles together: one that classifies many images gets more of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.gate_spec import entries_under, profile_prefix
from fertool.models.build import require_static
from fertool.models.dynamic_network import ImageGate
from fertool.models.profile_network import LEAST_SHARE, ProfileNetwork
from fertool.models.quantized import QuantizedNet
from fertool.models.quantized_gate import GATE_LAYERS, QuantizedGate
from fertool.quant.allocation_problem import AllocationProblem, make_problem
from fertool.quant.compute_choice import ComputeChoice
from fertool.quant.post_training import (
    describe_integer_fraction,
    plan_quantization,
    quantize_model,
)
from fertool.quant.qat import QATNet, convert, prepare_qat
from fertool.quant.weight_errors import weight_divergences
from fertool.quant.weight_rounding import fill_layer
from fertool.spec import QuantSpec, Spec, WeightQuant, join_quants

Bits = Mapping[str, Sequence[int]]
"""Bits of the output channels of each layer, by its name in the dynamic network."""


def plan_dynamic(
    spec: Spec,
    module: ProfileNetwork,
    config: QuantizeConfig,
    bits: Bits | None = None,
    choice: ComputeChoice | None = None,
) -> QuantSpec:
    """Return which tensors of all profiles become integers of how many bits.

    Raises FertoolError for a network that is quantized already.
    """
    parts = []
    for index, network in enumerate(module.networks):
        own = _bits_of(bits, index)
        profile = spec.of_profile(index)
        parts.append(plan_quantization(profile, network, config, own, _choice_of(choice, index)))
    return _joined(parts, module, config)


def quantize_dynamic(
    spec: Spec,
    module: ProfileNetwork,
    calibration: FaceDataset,
    config: QuantizeConfig = QuantizeConfig(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    bits: Bits | None = None,
    choice: ComputeChoice | None = None,
) -> tuple[QuantSpec, ProfileNetwork]:
    """Return the integer form of a dynamic network, and its `spec.quant`, as `quantize_model` does.

    Each profile is calibrated on all images, since any of them may be the next one's.
    """
    count = len(module.networks)
    parts: list[QuantSpec] = []
    networks: list[QuantizedNet] = []
    for index, network in enumerate(module.networks):
        # The index as it is now: the next profile has another one.
        def tick(done: int, total: int, before: int = index) -> None:
            on_progress(before * total + done, count * total)

        quant, integer = quantize_model(
            spec.of_profile(index),
            network,
            calibration,
            config,
            tick,
            bits=_bits_of(bits, index),
            choice=_choice_of(choice, index),
        )
        parts.append(quant)
        networks.append(integer)
    gate = None
    if isinstance(module.gate, ImageGate):
        gate = _quantized_gate(module.gate, config)
    return _joined(parts, module, config), module.with_networks(networks, gate).eval()


def describe_dynamic_fraction(module: ProfileNetwork, quant: QuantSpec) -> str:
    """Return in words how much of each profile's work is done by integers under a plan."""
    texts = []
    for index, network in enumerate(module.networks):
        own = quant.under(profile_prefix(index))
        if own is not None:
            text = describe_integer_fraction(require_static(network), own)
            texts.append(f"profile {index}: {text}")
    return "; ".join(texts)


def make_dynamic_problem(
    spec: Spec,
    module: ProfileNetwork,
    traces: Mapping[str, Sequence[float]] | None,
    limit: int = 127,
    keep_float: Sequence[str] = (),
) -> AllocationProblem:
    """Return the problem of all profiles together; `traces` are those of the outputs."""
    problems = []
    names: list[str] = []
    layers = []
    for index, network in enumerate(module.networks):
        prefix = profile_prefix(index)
        own = None
        if traces is not None:
            own = {name.removeprefix(prefix): trace for name, trace in traces.items()}
        problem = make_problem(spec.of_profile(index), network, own, limit, keep_float)
        layers.append(problem.layers + len(names))
        names += [f"{prefix}{name}" for name in problem.names]
        problems.append(problem)
    return AllocationProblem(
        names=tuple(names),
        layers=torch.cat(layers),
        weight_counts=torch.cat([problem.weight_counts for problem in problems]),
        traces=torch.cat([problem.traces for problem in problems]),
        errors=torch.cat([problem.errors for problem in problems]),
        max_bits=problems[0].max_bits,
    )


def dynamic_divergences(
    spec: Spec,
    module: ProfileNetwork,
    train: FaceDataset,
    config: QuantizeConfig = QuantizeConfig(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return `weight_divergences` of all profiles, each times the share of what it classifies."""
    parts = []
    count = len(module.networks)
    for index, network in enumerate(module.networks):
        # The index as it is now: the next profile has another one.
        def tick(done: int, total: int, before: int = index) -> None:
            on_progress(before * total + done, count * total)

        found = weight_divergences(spec.of_profile(index), network, train, config, tick)
        parts.append(max(module.shares[index], LEAST_SHARE) * found)
    return torch.cat(parts)


def prepare_dynamic_qat(net: ProfileNetwork, quant: QuantSpec) -> ProfileNetwork:
    """Return a copy of an integer network whose profiles train with fake quantization.

    A gate has no parameters to train: which profile suits an image the rounding does not change.
    """
    networks: list[nn.Module] = []
    for index, network in enumerate(net.networks):
        own = quant.under(profile_prefix(index))
        assert isinstance(network, QuantizedNet)
        assert own is not None
        networks.append(prepare_qat(network, own))
    return net.with_networks(networks)


def convert_dynamic(trained: ProfileNetwork, net: ProfileNetwork, quant: QuantSpec) -> None:
    """Fill `net`, in place, with the integers and scales of a trained copy of it."""
    for index, network in enumerate(trained.networks):
        own = quant.under(profile_prefix(index))
        integer = net.networks[index]
        assert isinstance(network, QATNet)
        assert isinstance(integer, QuantizedNet)
        assert own is not None
        convert(network, integer, own)


def _bits_of(bits: Bits | None, index: int) -> Bits | None:
    """Return the bits of the layers of one profile, by their names in it."""
    if bits is None:
        return None
    return entries_under(bits, profile_prefix(index))


def _choice_of(choice: ComputeChoice | None, index: int) -> ComputeChoice | None:
    """Return what computes with floats in one profile."""
    return choice.under(profile_prefix(index)) if choice else None


def _joined(
    parts: Sequence[QuantSpec], module: ProfileNetwork, config: QuantizeConfig
) -> QuantSpec:
    """Return the plans of all profiles as one, and that of a gate with them."""
    joined = join_quants(parts)
    assert joined is not None
    if not isinstance(module.gate, ImageGate):
        return joined
    weights = dict(joined.weights)
    # Of 8 bits whatever the budget: a gate that errs costs more than its bytes.
    for name in GATE_LAYERS:
        weights[name] = WeightQuant((8,), config.weight_limit)
    return replace(joined, weights=weights)


def _quantized_gate(gate: ImageGate, config: QuantizeConfig) -> QuantizedGate:
    integer = QuantizedGate(gate)
    rule = WeightQuant((8,), config.weight_limit)
    with torch.no_grad():
        for layer, source in zip(integer.layers, (gate.fc1, gate.fc2), strict=True):
            fill_layer(layer, source, rule, config.weight_observer)
    return integer
