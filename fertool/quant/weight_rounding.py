"""The integers of every layer: scales, weights and biases, rounded one by one or fitted to what the float layer says.

Fitting goes through the network once, layer by layer, on what arrives there from the integer layers before it. With x
that input, about its mean, and y what the float layer said, the weights W that come closest to y by ridge regression
are rounded one input after the other; the error of each is made up for by those not rounded yet (Frantar and Alistarh
2022, "Optimal Brain Compression", arXiv 2208.11580, equations 6 and 7; in this order for all rows at once by Frantar et
al. 2022, "GPTQ", arXiv 2210.17323, algorithm 1). The bias takes what is left of the means ("bias correction", Nagel et
al. 2019, arXiv 1906.04721).
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
from fertool.models.patches import at, draw_places, enough, patches, with_channels_second
from fertool.models.quantized import QuantConv2d, QuantizedNet, QuantLinear, quantize
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import InputSpec, WeightQuant, affordable_batch

RIDGE = 0.01
"""Weight of staying at the float weights, relative to the mean variance of a layer's inputs."""
_BATCH = 64
_BLOCK = 128
_LARGEST_BIAS = 2**30
_SMALLEST_HALF = 2.0**-24

IntegerLayer = QuantConv2d | QuantLinear


def fill_layer(layer: IntegerLayer, source: nn.Module, rule: WeightQuant, method: str) -> None:
    """Compute the integers of one layer from its folded float form `source`, each rounded to the nearest."""
    weight, bias = _parameters(source)
    limits = torch.tensor(rule.limits(len(weight)), device=weight.device)
    layer.weight_scale.copy_(_stored_scale(layer, bias, weight_scales(weight, limits, method)))
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
    """Fit the layers of `net`, which `fill_layer` has filled, to those of the folded float network, in place.

    `images` uint8 [N, C, S, S], of which the first are enough; `method` chooses the scales; `tick` is called after
    each layer.
    """
    images = enough(images, input.size)
    device = net.grids.scale.device
    said = _record(graph_module, rules, images, input, device)
    with ExitStack() as hooks:
        for name, rule in rules.items():
            fit = partial(_fit, said[name], graph_module.get_submodule(name), rule, method)
            layer = net.get_submodule(name)
            hooks.callback(layer.register_forward_pre_hook(fit).remove)
            hooks.callback(layer.register_forward_hook(lambda *_: tick()).remove)
        net(to_input(images.to(device), input))


@dataclass(frozen=True)
class _Said:
    """What a float layer said: `values` [N, out, P] at `places` [P] of its map."""

    places: Tensor
    values: Tensor


@dataclass(frozen=True)
class _Moments:
    """Means and covariances, float64, of a layer's inputs x and wanted outputs y, by group of channels.

    x_mean [G, F], y_mean [G, R], xx [G, F, F], yx [G, R, F], for fan-in F and R channels a group.
    """

    x_mean: Tensor
    y_mean: Tensor
    xx: Tensor
    yx: Tensor


def _record(
    graph_module: Network,
    rules: Mapping[str, WeightQuant],
    images: Tensor,
    input: InputSpec,
    device: torch.device,
) -> dict[str, _Said]:
    """Look at the float network, one batch after the other."""
    generator = torch.Generator().manual_seed(0)
    places: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {name: [] for name in rules}

    def keep(name: str, layer: nn.Module, args: Any, output: Tensor) -> None:
        output = with_channels_second(layer, output)
        if name not in places:
            positions = output[0, 0].numel() if output.dim() > 2 else 1
            places[name] = draw_places(positions, generator).to(device)
        parts[name].append(at(output, places[name]))

    with ExitStack() as hooks:
        for name in rules:
            hook = graph_module.get_submodule(name).register_forward_hook(partial(keep, name))
            hooks.callback(hook.remove)
        for batch in torch.split(images, affordable_batch(_BATCH, input.size)):
            graph_module(to_input(batch.to(device), input))
    return {name: _Said(places[name], torch.cat(seen)) for name, seen in parts.items()}


def _fit(
    said: _Said, source: nn.Module, rule: WeightQuant, method: str, layer: nn.Module, args: Any
) -> None:
    """Fit one layer, whose input arrives, to what its float form `source` said."""
    assert isinstance(layer, IntegerLayer)
    moments = _moments(layer, args[0], said)
    groups, fan_in = moments.x_mean.shape
    weight, bias = _parameters(source)
    limits = torch.tensor(rule.limits(len(weight)), device=weight.device)
    wanted = _regressed(weight.double().reshape(groups, -1, fan_in), moments)
    importance = moments.xx.diagonal(dim1=1, dim2=2).repeat_interleave(wanted.shape[1], 0)
    scale = weight_scales(wanted.reshape(len(weight), -1), limits, method, importance)
    layer.weight_scale.copy_(_stored_scale(layer, bias, scale))
    steps = layer.weight_scale.double().reshape(groups, -1)
    integers = _compensated(wanted, steps, limits.reshape(groups, -1), moments.xx)
    layer.weight.copy_(integers.reshape(layer.weight.shape))
    means = torch.einsum("grf,gf->gr", integers * steps[..., None], moments.x_mean)
    set_bias(layer, (moments.y_mean - means).flatten())


def _moments(layer: IntegerLayer, x: Tensor, said: _Said) -> _Moments:
    count, sums = 0, [torch.zeros((), dtype=torch.float64, device=x.device)] * 4
    x_near, y_near = (values.mean(1, keepdim=True) for values in next(_samples(layer, x, said)))
    for inputs, outputs in _samples(layer, x, said):
        # About a point near the means, or of inputs that hardly vary only rounding errors would be left.
        inputs, outputs = inputs - x_near, outputs - y_near
        count += inputs.shape[1]
        products = (inputs.sum(1), outputs.sum(1), inputs.mT @ inputs, outputs.mT @ inputs)
        sums = [total + part for total, part in zip(sums, products, strict=True)]
    x_mean, y_mean, xx, yx = (total / count for total in sums)
    xx, yx = xx - x_mean[:, :, None] * x_mean[:, None], yx - y_mean[:, :, None] * x_mean[:, None]
    xx.diagonal(dim1=1, dim2=2).clamp_(min=0)
    return _Moments(x_mean + x_near[:, 0], y_mean + y_near[:, 0], xx, yx)


def _samples(layer: IntegerLayer, x: Tensor, said: _Said) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and wanted outputs at the places, by group: float64 [G, n, F] and [G, n, R]."""
    for images, values in zip(
        torch.split(x, _BATCH), torch.split(said.values, _BATCH), strict=True
    ):
        inputs = patches(layer, images, said.places).double()
        outputs = values.reshape(len(values), len(inputs), -1, values.shape[2])
        yield inputs, outputs.permute(1, 0, 3, 2).flatten(1, 2).double()


def _regressed(weight: Tensor, moments: _Moments) -> Tensor:
    """Return the weights [G, R, F] that come closest to the wanted outputs, with a ridge about the given ones."""
    ridge = _ridge(moments.xx)
    matrix = moments.xx + torch.diag_embed(ridge.expand(moments.x_mean.shape))
    solved: Tensor = torch.linalg.solve(matrix, (moments.yx + ridge[..., None] * weight).mT)
    return solved.mT


def _ridge(xx: Tensor) -> Tensor:
    """Return what is added to the variances of each group, [G, 1]."""
    return (RIDGE * xx.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)).clamp(min=1e-12)


def _compensated(weight: Tensor, steps: Tensor, limits: Tensor, xx: Tensor) -> Tensor:
    """Return integers [G, R, F] for weights with one step and limit for each row [G, R] and covariance xx [G, F, F].

    Inputs of large variance first: the others have room to make up for them. Blocks of columns only save time.
    """
    order = xx.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    hessian = xx + torch.diag_embed(_ridge(xx).expand(xx.shape[:2]))
    hessian = hessian.gather(1, order[:, :, None].expand_as(xx)).gather(
        2, order[:, None].expand_as(xx)
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rest = weight.gather(2, order[:, None].expand_as(weight))
    integers = torch.empty_like(rest)
    width = rest.shape[2]
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        errors = torch.empty_like(rest[:, :, start:end])
        for column in range(start, end):
            values = (rest[:, :, column] / steps).round()
            integers[:, :, column] = torch.minimum(torch.maximum(values, -limits), limits)
            error = (rest[:, :, column] - integers[:, :, column] * steps) / factor[
                :, column, None, column
            ]
            rest[:, :, column + 1 : end] -= (
                error[:, :, None] * factor[:, None, column, column + 1 : end]
            )
            errors[:, :, column - start] = error
        rest[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(integers).scatter_(2, order[:, None].expand_as(integers), integers)


def _parameters(source: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias, zeros where there is none."""
    assert isinstance(source, nn.Conv2d | nn.Linear)
    weight = source.weight.detach()
    return weight, weight.new_zeros(len(weight)) if source.bias is None else source.bias.detach()


def _stored_scale(layer: IntegerLayer, bias: Tensor, scale: Tensor) -> Tensor:
    """Return the scales as float16 can hold them and the biases need them.

    A channel of tiny weights with a large bias needs a coarser scale, or its bias would not fit 32 bits.
    """
    scale = torch.maximum(scale, bias.abs() / (layer.input_scale() * _LARGEST_BIAS))
    return torch.where(scale > 0, scale, 1.0).clamp(_SMALLEST_HALF, torch.finfo(torch.float16).max)


def set_bias(layer: IntegerLayer, bias: Tensor) -> None:
    """Put in a bias as int32 in units of input scale x weight scale."""
    layer.bias.copy_(quantize(bias, layer.bias_scale().double(), 0, -(2**31), 2**31 - 1))
