"""The integers of every layer: scales, weights and biases, rounded to the nearest or by GPTQ.

GPTQ goes through the network once, layer by layer, on the inputs that arrive from the integer
layers before it. With x that input, about its mean, and y the output of the float layer, the
weights W that come closest to y by ridge regression are rounded one input after the other; weights
not rounded yet compensate for the error of each (Frantar and Alistarh 2022, "Optimal Brain
Compression", arXiv 2208.11580, equations 6 and 7; in this order for all rows at once by Frantar et
al. 2022, "GPTQ", arXiv 2210.17323, algorithm 1). The bias takes the remaining difference of the
means ("bias correction", Nagel et al. 2019, arXiv 1906.04721).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.graph.network import Network
from fertool.models.quantized import IntegerLayer, IntegerTensors, QuantizedNet, quantize
from fertool.models.sampling import (
    gather_positions,
    input_patches,
    limit_images,
    ridge_strength,
    sample_positions,
    to_channels_first,
)
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import InputSpec, WeightQuant, affordable_batch

_BATCH = 64
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
    layer.weight_scale.copy_(_storable_scale(layer, bias, scale))
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
) -> None:
    """Fit the layers of `net` to those of the folded float network by GPTQ, in place.

    `fill_layer` has filled them. `images` uint8 [N, C, S, S], of which the first are used; `method`
    chooses the scales; `tick` is called after each layer.
    """
    images = limit_images(images, input.size)
    device = net.grids.scale.device
    targets = _record_targets(graph_module, rules, images, input, device)

    def count(*_: Any) -> None:
        tick()

    with ExitStack() as hooks:
        for name, rule in rules.items():
            source = graph_module.get_submodule(name)
            layer = net.get_submodule(name)
            # Before a layer runs: what arrives then comes from fitted layers, and what it passes
            # on from its own fit.
            fit = partial(_fit, targets[name], source, rule, method)
            hooks.callback(layer.register_forward_pre_hook(fit).remove)
            hooks.callback(layer.register_forward_hook(count).remove)
        net(to_input(images.to(device), input))


@dataclass(frozen=True)
class _Target:
    """The output of a float layer: `values` [N, out, P] at `positions` [P] of its map."""

    positions: Tensor
    values: Tensor


@dataclass(frozen=True)
class _Moments:
    """Means and covariances, float64, of a layer's inputs x and wanted outputs y, by group.

    x_mean [G, F], y_mean [G, R], xx [G, F, F], yx [G, R, F], for G groups of channels, fan-in F and
    R channels a group.
    """

    x_mean: Tensor
    y_mean: Tensor
    xx: Tensor
    yx: Tensor


class _Recorder:
    """Forward hook that keeps the output of a float layer at some positions."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self._generator = generator
        self._device = device
        self._positions: Tensor | None = None
        self._values: list[Tensor] = []

    def __call__(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        output = to_channels_first(layer, output)
        if self._positions is None:
            count = output[0, 0].numel() if output.dim() > 2 else 1
            self._positions = sample_positions(count, self._generator).to(self._device)
        self._values.append(gather_positions(output, self._positions))

    def target(self) -> _Target:
        """Return what was recorded."""
        assert self._positions is not None
        return _Target(self._positions, torch.cat(self._values))


def _record_targets(
    graph_module: Network,
    rules: Mapping[str, WeightQuant],
    images: Tensor,
    input: InputSpec,
    device: torch.device,
) -> dict[str, _Target]:
    """Run the float network, one batch after the other, and return the outputs of its layers."""
    # One generator for all, so that the layers are seen at different positions.
    generator = torch.Generator().manual_seed(0)
    recorders = {name: _Recorder(generator, device) for name in rules}
    with ExitStack() as hooks:
        for name, recorder in recorders.items():
            hook = graph_module.get_submodule(name).register_forward_hook(recorder)
            hooks.callback(hook.remove)
        for batch in torch.split(images, affordable_batch(_BATCH, input.size)):
            graph_module(to_input(batch.to(device), input))
    return {name: recorder.target() for name, recorder in recorders.items()}


def _fit(
    target: _Target, source: nn.Module, rule: WeightQuant, method: str, layer: nn.Module, args: Any
) -> None:
    """Fit one layer, whose input arrives, to the output of its float form `source` (pre-hook)."""
    assert isinstance(layer, IntegerLayer)
    moments = _moments(layer, args[0], target)
    groups, fan_in = moments.x_mean.shape
    weight, bias = _parameters(source)
    limits = torch.tensor(rule.limits(len(weight)), device=weight.device)
    wanted = _regress(weight.double().reshape(groups, -1, fan_in), moments)
    # An error in a weight counts by the variance of its input.
    importance = moments.xx.diagonal(dim1=1, dim2=2).repeat_interleave(wanted.shape[1], 0)
    scale = weight_scales(wanted.reshape(len(weight), -1), limits, method, importance)
    layer.weight_scale.copy_(_storable_scale(layer, bias, scale))

    scales = layer.weight_scale.double().reshape(groups, -1)
    integers = gptq_integers(wanted, scales, limits.reshape(groups, -1), moments.xx)
    layer.weight.copy_(integers.reshape(layer.weight.shape))
    means = torch.einsum("grf,gf->gr", integers * scales[..., None], moments.x_mean)
    set_bias(layer, (moments.y_mean - means).flatten())


def _moments(layer: IntegerLayer, x: Tensor, target: _Target) -> _Moments:
    """Return the moments of a layer's inputs and wanted outputs."""
    zero = torch.zeros((), dtype=torch.float64, device=x.device)
    count = 0
    x_sum = y_sum = xx_sum = yx_sum = zero
    first_inputs, first_outputs = next(_samples(layer, x, target))
    x_near = first_inputs.mean(1, keepdim=True)
    y_near = first_outputs.mean(1, keepdim=True)
    for all_inputs, all_outputs in _samples(layer, x, target):
        # About a point near the means: of inputs that hardly vary only rounding errors would be
        # left otherwise.
        inputs = all_inputs - x_near
        outputs = all_outputs - y_near
        count += inputs.shape[1]
        x_sum = x_sum + inputs.sum(1)
        y_sum = y_sum + outputs.sum(1)
        xx_sum = xx_sum + inputs.mT @ inputs
        yx_sum = yx_sum + outputs.mT @ inputs

    x_mean, y_mean = x_sum / count, y_sum / count
    xx = xx_sum / count - x_mean[:, :, None] * x_mean[:, None]
    yx = yx_sum / count - y_mean[:, :, None] * x_mean[:, None]
    xx.diagonal(dim1=1, dim2=2).clamp_(min=0)
    return _Moments(x_mean + x_near[:, 0], y_mean + y_near[:, 0], xx, yx)


def _samples(layer: IntegerLayer, x: Tensor, target: _Target) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and wanted outputs at the positions, by group: float64 [G, n, F], [G, n, R]."""
    batches = zip(torch.split(x, _BATCH), torch.split(target.values, _BATCH), strict=True)
    for images, values in batches:
        inputs = input_patches(layer, images, target.positions).double()
        outputs = values.reshape(len(values), len(inputs), -1, values.shape[2])
        yield inputs, outputs.permute(1, 0, 3, 2).flatten(1, 2).double()


def _regress(weight: Tensor, moments: _Moments) -> Tensor:
    """Return the weights [G, R, F] closest to the wanted outputs, with a ridge about the given."""
    ridge = ridge_strength(moments.xx)
    matrix = moments.xx + torch.diag_embed(ridge.expand(moments.x_mean.shape))
    solved: Tensor = torch.linalg.solve(matrix, (moments.yx + ridge[..., None] * weight).mT)
    return solved.mT


def gptq_integers(weight: Tensor, scales: Tensor, limits: Tensor, xx: Tensor) -> Tensor:
    """Return integers [G, R, F] for weights with a scale and limit for each row [G, R].

    `xx` [G, F, F] is the covariance of the inputs. Inputs of large variance come first: the others
    have room to compensate for them. Blocks of columns only save time.
    """
    order = xx.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    factor = _error_factor(xx, order)
    remaining = weight.gather(2, order[:, None].expand_as(weight))
    integers = torch.empty_like(remaining)
    fan_in = remaining.shape[2]
    for start in range(0, fan_in, _BLOCK):
        end = min(start + _BLOCK, fan_in)
        errors = torch.empty_like(remaining[:, :, start:end])
        for column in range(start, end):
            values = remaining[:, :, column]
            rounded = (values / scales).round()
            rounded = torch.minimum(torch.maximum(rounded, -limits), limits)
            integers[:, :, column] = rounded
            error = (values - rounded * scales) / factor[:, column, None, column]
            # Equation 7: the columns of this block compensate at once, the later ones by block.
            row = factor[:, None, column, column + 1 : end]
            remaining[:, :, column + 1 : end] -= error[:, :, None] * row
            errors[:, :, column - start] = error
        remaining[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(integers).scatter_(2, order[:, None].expand_as(integers), integers)


def _error_factor(xx: Tensor, order: Tensor) -> Tensor:
    """Return the upper Cholesky factor [G, F, F] of the inverse Hessian, inputs in this order."""
    hessian = xx + torch.diag_embed(ridge_strength(xx).expand(xx.shape[:2]))
    hessian = hessian.gather(1, order[:, :, None].expand_as(xx))
    hessian = hessian.gather(2, order[:, None].expand_as(xx))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _parameters(source: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias, zeros where there is none."""
    assert isinstance(source, nn.Conv2d | nn.Linear)
    weight = source.weight.detach()
    if source.bias is None:
        return weight, weight.new_zeros(len(weight))
    return weight, source.bias.detach()


def _storable_scale(layer: IntegerTensors, bias: Tensor, scale: Tensor) -> Tensor:
    """Return the scales as float16 can hold them and the biases need them.

    A channel of tiny weights with a large bias needs a coarser scale, or its bias would not fit 32
    bits.
    """
    scale = torch.maximum(scale, bias.abs() / (layer.input_scale() * _LARGEST_BIAS))
    scale = torch.where(scale > 0, scale, 1.0)
    return scale.clamp(_SMALLEST_HALF, torch.finfo(torch.float16).max)


def set_bias(layer: IntegerTensors, bias: Tensor) -> None:
    """Set the bias, as int32 in units of input scale x weight scale."""
    layer.bias.copy_(quantize(bias, layer.bias_scale().double(), 0, -(2**31), 2**31 - 1))
