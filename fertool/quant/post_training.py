"""Post-training quantization: calibrates ranges on the float network, computes all integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import channels_last, to_input
from fertool.errors import FertoolError
from fertool.graph.counting import layer_macs
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.build import require_static
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantized import (
    IntegerLayer,
    QuantizedNet,
    build_quantized,
    insert_at_quantizer_points,
)
from fertool.models.quantizer_points import QuantizerPlan, QuantizerPoint
from fertool.quant.activation_bits import (
    ACTIVATION_BITS,
    allocate_activation_bits,
    rounding_losses,
)
from fertool.quant.compute_choice import ALL_FLOAT, ComputeChoice
from fertool.quant.observers import (
    HistogramObserver,
    QParams,
    RangeObserver,
    activation_qparams,
    gated_qparams,
)
from fertool.quant.weight_rounding import fill_layer, fit_layers
from fertool.spec import InputSpec, QuantSpec, Spec, WeightQuant, affordable_batch


def plan_quantization(
    spec: Spec,
    module: nn.Module,
    config: QuantizeConfig,
    bits: Mapping[str, Sequence[int]] | None = None,
    choice: ComputeChoice | None = None,
) -> QuantSpec:
    """Return which tensors become integers of how many bits.

    Weights have 8, or as many as `bits` has for each output channel. `choice` tells what computes
    with floats; without one the option does. Raises FertoolError for a network that is quantized
    already, or dynamic.
    """
    if spec.quant is not None:
        raise FertoolError(
            "the model is quantized already", "quantize the float model that it was made from"
        )
    spec.require_static("quantized")
    choice = _choice_of(config, choice)
    plan = _plan(fold_for_inference(require_static(module)), spec.input, config, choice)
    weights = {}
    for name in plan.layer_inputs:
        # A single number stands for all channels of a layer. Bits are allocated behind the float
        # prefix alone, which layers that compute with floats are not kept out of.
        channel_bits = tuple(bits.get(name, (8,))) if bits else (8,)
        weights[name] = WeightQuant(channel_bits, config.weight_limit)
    activations = {point.name: config.activation_bits for point in plan.points}
    compute = None
    if choice is not None:
        compute = replace(choice.spec, float_layers=tuple(sorted(plan.float_layers)))
    return QuantSpec(weights=weights, activations=activations, compute=compute)


def _choice_of(config: QuantizeConfig, choice: ComputeChoice | None) -> ComputeChoice | None:
    """Return what computes with floats: the choice that was made, or the one of the option."""
    if choice is None and config.compute == "float":
        return ALL_FLOAT
    return choice


def _plan(
    graph_module: Network, input: InputSpec, config: QuantizeConfig, choice: ComputeChoice | None
) -> QuantizerPlan:
    """Return the quantizer points and integer layers of a folded network."""
    if choice is None:
        return plan_quantizers(graph_module, input, config.keep_float)
    float_nodes = choice.float_nodes
    if float_nodes is None:
        float_nodes = frozenset(graph_module.graph.by_name)
    return plan_quantizers(graph_module, input, config.keep_float, float_nodes)


def quantize_model(
    spec: Spec,
    module: nn.Module,
    calibration: FaceDataset,
    config: QuantizeConfig = QuantizeConfig(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    bits: Mapping[str, Sequence[int]] | None = None,
    choice: ComputeChoice | None = None,
) -> tuple[QuantSpec, QuantizedNet]:
    """Return the integer form of a float network, and its `spec.quant`; `module` is not changed.

    Weights: signed, one symmetric scale per output channel, of 8 bits or of as many as `bits` has
    for each channel of each layer. Activations: unsigned, affine, per tensor, of the bits in
    `config`. Biases: int32 in units of exactly input scale x weight scale. `choice` tells what
    computes with floats; without one the option does. `on_progress` counts batches of the passes
    over the images, then fitted layers.

    Raises FertoolError without images, for a network that is quantized already, or for one of
    infinite activations.
    """
    quant = plan_quantization(spec, module, config, bits, choice)
    if len(calibration) == 0:
        raise FertoolError("there are no calibration images", "name a data set with ``data``")
    least_bits = min((min(rule.bits) for rule in quant.weights.values()), default=8)
    count = config.calibration_count(least_bits)
    images = calibration.balanced_subset(count, config.seed).images
    graph_module = fold_for_inference(require_static(module))
    plan = _plan(graph_module, spec.input, config, _choice_of(config, choice))
    fits_layers = config.rounding != "nearest"
    # Two passes find the ranges, a third the losses that bits are allocated by.
    passes = 2 if config.average_activation_bits is None else 3
    batch_size = affordable_batch(config.calibration_batch_size, spec.input.size)
    total = passes * math.ceil(len(images) / batch_size)
    if fits_layers:
        total += len(quant.weights)
    done = itertools.count(1)

    def tick() -> None:
        on_progress(next(done), total)

    batches = _CalibrationImages(images, spec.input, batch_size, tick)
    qparams, activations = _choose_qparams(graph_module, plan, batches, config, quant.activations)
    quant = replace(quant, activations=activations)
    net = build_quantized(require_static(module), replace(spec, quant=quant))
    # First: the unit of a bias has the scale of the layer's input.
    for name, index in net.grids.index.items():
        net.grids.scale[index] = qparams[name].scale
        net.grids.zero_point[index] = qparams[name].zero_point
    if fits_layers:
        fit_layers(
            net,
            graph_module,
            quant.weights,
            images,
            spec.input,
            config.weight_observer,
            tick,
            descent=config.rounding == "coordinate-descent",
        )
    else:
        _fill_layers(net, graph_module, quant.weights, config.weight_observer)
    return quant, net


def _fill_layers(
    net: QuantizedNet, graph_module: Network, rules: Mapping[str, WeightQuant], method: str
) -> None:
    for name, rule in rules.items():
        layer = net.get_submodule(name)
        assert isinstance(layer, IntegerLayer)
        fill_layer(layer, graph_module.get_submodule(name), rule, method)


def describe_integer_fraction(network: Network, quant: QuantSpec) -> str:
    """Return in words how much of a float network's work is done by integers under a plan."""
    layers = 0
    total_macs = 0
    integer_macs = 0
    for node in network.graph.nodes:
        macs = layer_macs(network, node)
        total_macs += macs
        if macs:
            layers += 1
        if node.name in quant.weights:
            integer_macs += macs
    # Of a network without layers nothing is done, by integers or otherwise.
    percent = 100 * integer_macs / max(1, total_macs)
    counts = f"{len(quant.weights)} of {layers} layers"
    return f"{counts} compute on integers: {percent:.0f} % of the multiply-accumulates"


@dataclass(frozen=True)
class _CalibrationImages:
    """The calibration images in batches, and what is called after each."""

    images: Tensor
    input: InputSpec
    batch_size: int
    tick: Callable[[], None]

    def run(self, network: nn.Module) -> None:
        """Run a network, which observes its activations, on all images."""
        device = next(network.parameters()).device
        with torch.inference_mode():
            for batch in torch.split(self.images, self.batch_size):
                network(channels_last(to_input(batch.to(device), self.input)))
                self.tick()


def _choose_qparams(
    graph_module: Network,
    plan: QuantizerPlan,
    images: _CalibrationImages,
    config: QuantizeConfig,
    bits: Mapping[str, int],
) -> tuple[dict[str, QParams], Mapping[str, int]]:
    """Return the QParams of each quantizer, and its bits: the given ones, or allocated ones."""
    observers = _observe(graph_module, plan, images)
    if config.average_activation_bits is not None:
        bits = _allocate_bits(
            graph_module, plan, observers, images, config, config.average_activation_bits
        )
    qparams = {}
    for point in plan.points:
        qparams[point.name] = _qparams(point, observers[point.name], config, bits[point.name])
    return qparams, bits


def _allocate_bits(
    graph_module: Network,
    plan: QuantizerPlan,
    observers: Mapping[str, HistogramObserver],
    images: _CalibrationImages,
    config: QuantizeConfig,
    average_bits: float,
) -> dict[str, int]:
    """Return the bits of each quantizer whose mean over the values is `average_bits`."""
    by_bits = {}
    for point in plan.points:
        observer = observers[point.name]
        by_bits[point.name] = [_qparams(point, observer, config, bits) for bits in ACTIVATION_BITS]
    items = rounding_losses(
        graph_module,
        plan,
        by_bits,
        images.images,
        images.input,
        batch_size=images.batch_size,
        seed=config.seed,
        tick=images.tick,
    )
    allocated = allocate_activation_bits(items, average_bits)
    return {point.name: bits for point, bits in zip(plan.points, allocated, strict=True)}


def _observe(
    graph_module: Network, plan: QuantizerPlan, images: _CalibrationImages
) -> dict[str, HistogramObserver]:
    """Run the float network twice: the first pass bounds the histograms of the second."""
    ranges = {point.name: RangeObserver(point.gate_range) for point in plan.points}
    images.run(insert_at_quantizer_points(graph_module, plan, ranges))
    histograms = {}
    for name, observed in ranges.items():
        if not (math.isfinite(observed.low) and math.isfinite(observed.high)):
            raise FertoolError(
                f"the activations at {name} are not finite",
                "train the model again, or with a lower ``lr``",
            )
        histograms[name] = HistogramObserver(observed.low, observed.high)
    images.run(insert_at_quantizer_points(graph_module, plan, histograms))
    return histograms


def _qparams(
    point: QuantizerPoint, observer: HistogramObserver, config: QuantizeConfig, bits: int
) -> QParams:
    if point.gate_range:
        return gated_qparams(observer, point.gate_range, config.observer, bits, config.percentile)
    return activation_qparams(observer, config.observer, bits, config.percentile)
