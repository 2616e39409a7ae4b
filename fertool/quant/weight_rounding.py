"""The integers of every layer: scales, weights and biases, rounded to the nearest or by GPTQ.

GPTQ goes through the network once, layer by layer, on the inputs that arrive from the integer
layers before it. With x that input, about its mean, and y the output of the float layer, the
weights W that come closest to y by ridge regression are rounded one input after the other; weights
not rounded yet compensate for the error of each (Frantar and Alistarh 2022, "Optimal Brain
Compression", arXiv 2208.11580, equations 6 and 7; in this order for all rows at once by Frantar et
al. 2022, "GPTQ", arXiv 2210.17323, algorithm 1). The bias takes the remaining difference of the
means ("bias correction", Nagel et al. 2019, arXiv 1906.04721). Coordinate descent starts from
these integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fertool.config.quantization import FEW_BITS
from fertool.data.pixels import channels_last, to_input
from fertool.graph.network import Network
from fertool.models.batched_run import BatchedRun
from fertool.models.quantized import IntegerLayer, IntegerTensors, QuantizedNet, quantize
from fertool.models.regression import Moments, measure_moments, regress_
from fertool.models.sampling import (
    gather_positions,
    limit_images,
    ridge_strength,
    sample_positions,
    to_channels_first,
)
from fertool.quant.coordinate_descent import RoundedWeights, descend
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import InputSpec, WeightQuant, affordable_batch

# Few, so that the maps of a batch stay in the cache of a processor.
_BATCH = 16
# Columns whose errors are carried to the later ones in one product; only saves time.
_BLOCK = 128
# Half of what int32 holds: the scale may still become smaller when it is rounded to float16.
_LARGEST_BIAS = 2**30
# The smallest positive number of float16, which the scales are stored in.
_SMALLEST_HALF = 2.0**-24


def fill_layer(layer: IntegerTensors, source: nn.Module, rule: WeightQuant, method: str) -> None:
    """Fill one layer with the integers of its folded float form `source`, rounded to the nearest.

    `method` chooses the scales, see `weight_scales`.
    """
    weight, bias = _parameters(source)
    limits = torch.tensor(rule.limits(len(weight)), device=weight.device)
    scale = weight_scales(weight, limits, method)
    layer.weight_scale.copy_(_storable_scales(layer, bias, scale))
    # By the scale as stored: rounding it to float16 afterwards would move all weights.
    layer.weight.copy_(integer_weight(weight, layer.weight_scale.float(), limits))
    set_bias(layer, bias.double())


@torch.no_grad()
def fit_layers(
    net: QuantizedNet,
    graph_module: Network,
    rules: Mapping[str, WeightQuant],
    images: Tensor,
    input: InputSpec,
    method: str,
    tick: Callable[[], None] = lambda: None,
    *,
    descent: bool = True,
) -> None:
    """Fit the layers of `net` to those of the folded float network by GPTQ, in place.

    `images` uint8 [N, C, S, S], of which the first are used; `method` chooses the scales; `tick` is
    called after each layer; `descent`: channels of few bits go on by coordinate descent. Both
    networks run node by node on all images.
    """
    device = net.grids.scale.device
    batch_size = affordable_batch(_BATCH, input.size)
    batches = []
    for batch in torch.split(limit_images(images, input.size), batch_size):
        batches.append(channels_last(to_input(batch.to(device), input)))
    wanted_run = BatchedRun(graph_module, batches)
    run = BatchedRun(net, batches)
    # One generator for all, so that the layers are seen at different positions.
    generator = torch.Generator().manual_seed(0)
    for node in net.graph.nodes:
        name = node.name
        if name not in rules:
            continue
        layer, source = net.get_submodule(name), graph_module.get_submodule(name)
        assert isinstance(layer, IntegerLayer)
        wanted, positions = _sampled(source, wanted_run.outputs_of(name), generator)
        # What arrives comes from fitted layers, and what the layer passes on from its own fit.
        moments = measure_moments(layer, run.inputs_of(name), wanted, positions)
        _fit(layer, source, rules[name], method, moments, descent)
        tick()


def _sampled(
    source: nn.Module, outputs: Sequence[Tensor], generator: torch.Generator
) -> tuple[list[Tensor], Tensor]:
    """Return the outputs of a float layer [N, out, P], by batch, and their positions [P]."""
    maps = [to_channels_first(source, output) for output in outputs]
    count = maps[0][0, 0].numel() if maps[0].dim() > 2 else 1
    positions = sample_positions(count, generator).to(maps[0].device)
    return [gather_positions(values, positions) for values in maps], positions


def _fit(
    layer: IntegerLayer,
    source: nn.Module,
    rule: WeightQuant,
    method: str,
    moments: Moments,
    descent: bool,
) -> None:
    """Fit one layer to the output of its float form `source`."""
    groups, fan_in = moments.x_mean.shape
    weight, bias = _parameters(source)
    limits = torch.tensor(rule.limits(len(weight)), device=weight.device).reshape(groups, -1)
    variances = moments.xx.diagonal(dim1=1, dim2=2).clone()
    covariance = None
    if descent and min(rule.bits) <= FEW_BITS:
        # Before the regression overwrites it.
        covariance = moments.xx.float()
        covariance.diagonal(dim1=1, dim2=2).add_(ridge_strength(moments.xx))

    order = rounding_order(variances)
    wanted, factor = regress_(weight.reshape(groups, -1, fan_in), moments, order)
    # An error in a weight counts by the variance of its input.
    importance = variances.repeat_interleave(wanted.shape[1], 0)
    storable = partial(_storable_scales, layer, bias)
    scale = weight_scales(
        wanted.reshape(len(weight), -1), limits.flatten(), method, importance
    ).reshape(groups, -1)
    scales = storable(scale).double()
    integers = gptq_integers(wanted, scales, limits, order, factor)
    if covariance is not None:
        start = RoundedWeights(integers, scales)
        found = descend(wanted, start, limits, covariance, storable)
        integers, scales = found.integers, found.scales

    layer.weight_scale.copy_(scales.flatten())
    layer.weight.copy_(integers.reshape(layer.weight.shape))
    means = torch.einsum("grf,gf->gr", integers * scales[..., None], moments.x_mean)
    set_bias(layer, (moments.y_mean - means).flatten())


def rounding_order(variances: Tensor) -> Tensor:
    """Return the order [G, F] of inputs of these variances, of which the last is rounded first.

    That is the one of the largest variance: the others have room to compensate for it.
    """
    return variances.argsort(dim=1, descending=True).flip(1)


def gptq_integers(
    weight: Tensor, scales: Tensor, limits: Tensor, order: Tensor, factor: Tensor
) -> Tensor:
    """Return integers [G, R, F] for weights with a scale and limit for each row [G, R].

    `factor` L [G, F, F] is the lower Cholesky factor of the inputs' covariances in this `order`,
    of which the last input is rounded first. The squared error is |e L|^2, e the errors of the
    weights, and column k of e L contains none of the errors before k: each is made as small as the
    later ones leave it. That is what equations 6 and 7 do by the inverse (Chen et al. 2025, "The
    Geometry of LLM Quantization", arXiv 2507.18553). Blocks of columns only save time.
    """
    columns = order[:, None].expand_as(weight)
    ordered = weight.gather(2, columns)
    integers = torch.empty_like(ordered)
    # Column k of e L without the error of k itself.
    carried = torch.zeros_like(ordered)
    for end in range(ordered.shape[2], 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        errors = torch.empty_like(ordered[:, :, start:end])
        for column in reversed(range(start, end)):
            pivot = factor[:, column, None, column]
            values = ordered[:, :, column] + carried[:, :, column] / pivot
            rounded = (values / scales).round()
            rounded = torch.minimum(torch.maximum(rounded, -limits), limits)
            integers[:, :, column] = rounded
            error = ordered[:, :, column] - rounded * scales
            # The columns of this block compensate at once, the others by block.
            row = factor[:, None, column, start:column]
            carried[:, :, start:column] += error[:, :, None] * row
            errors[:, :, column - start] = error
        carried[:, :, :start] += errors @ factor[:, start:end, :start]
    return torch.empty_like(integers).scatter_(2, columns, integers)


def _parameters(source: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias, zeros where there is none."""
    assert isinstance(source, nn.Conv2d | nn.Linear)
    weight = source.weight.detach()
    if source.bias is None:
        return weight, weight.new_zeros(len(weight))
    return weight, source.bias.detach()


def _storable_scales(layer: IntegerTensors, bias: Tensor, scales: Tensor) -> Tensor:
    """Return scales of a layer's channels, [out] in any shape, as a file can hold them.

    They are numbers of float16. A channel of tiny weights with a large bias needs a coarser scale,
    or its bias would not fit 32 bits.
    """
    coarse_enough = (bias.abs() / (layer.input_scale() * _LARGEST_BIAS)).reshape(scales.shape)
    scales = torch.maximum(scales, coarse_enough.to(scales))
    scales = torch.where(scales > 0, scales, 1.0)
    half = scales.clamp(_SMALLEST_HALF, torch.finfo(torch.float16).max).half()
    return half.to(scales)


def set_bias(layer: IntegerTensors, bias: Tensor) -> None:
    """Set the bias, as int32 in units of input scale x weight scale."""
    layer.bias.copy_(quantize(bias, layer.bias_scale().double(), 0, -(2**31), 2**31 - 1))
