"""What rounding the weights of a float network would do to its outputs, by channel and bits.

The candidate errors are those that the quantizer makes: rounded to the nearest, or by GPTQ on the
float network's inputs with the means of the layer's outputs restored by the bias. What they cost is
the divergence of `output_divergence`. GPTQ fits its integers to the calibration images, so that
the divergence is measured on others: with few positions in the last maps and many weights it looks
much too small on the images of the fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.build import require_static
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantized import dequantize, per_channel
from fertool.models.regression import measure_inputs, ordered_factor_
from fertool.models.sampling import limit_images, sample_positions, to_channels_first
from fertool.quant.observers import integer_weight, weight_scales
from fertool.quant.output_divergence import ErrorProbe, mean_divergences
from fertool.quant.weight_rounding import gptq_integers, rounding_order
from fertool.spec import WEIGHT_BITS, InputSpec, Spec, WeightQuant, affordable_batch

FIT_IMAGES, MEASURED_IMAGES = 256, 512
"""Calibration images that GPTQ rounds on, and other ones that the divergence is measured on."""
_BATCH = 64


@dataclass(frozen=True, eq=False)
class WeightErrors:
    """What rounding adds to a layer: `weight` [bits, out, ...] and `bias` [bits, out]."""

    weight: Tensor
    bias: Tensor


def weight_divergences(
    spec: Spec,
    module: nn.Module,
    train: FaceDataset,
    config: QuantizeConfig = QuantizeConfig(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return the divergence that rounding each channel's weights causes, float64 [C, 7], in nats.

    The channels are those of the problem of this float network (`make_problem`), the columns
    WEIGHT_BITS. `on_progress` counts layers that are rounded, then batches. Raises FertoolError
    without images.
    """
    if len(train) == 0:
        raise FertoolError("there are no training images", "name a data set with ``data``")
    network = fold_for_inference(require_static(module))
    names = tuple(plan_quantizers(network, spec.input, config.keep_float).layer_inputs)
    fitted, measured = _draw_images(train, config, spec.input.size)
    total = len(names) + math.ceil(len(measured) / affordable_batch(_BATCH, spec.input.size))
    done = itertools.count(1)

    def tick() -> None:
        on_progress(next(done), total)

    errors = candidate_errors(
        network,
        names,
        fitted,
        spec.input,
        limit=config.weight_limit,
        rounding=config.rounding,
        tick=tick,
    )
    probes = {name: _WeightProbe(errors[name]) for name in names}
    with _watching(network, probes):
        found = mean_divergences(
            network, probes, measured, spec.input, batch_size=_BATCH, seed=config.seed, tick=tick
        )
    return _join_channels(errors, found)


def _join_channels(errors: Mapping[str, WeightErrors], found: Mapping[str, Tensor]) -> Tensor:
    """Return the divergences of the channels of all layers, [C, bits]."""
    divergences = []
    for name, error in errors.items():
        # No gradient reaches a layer that the logits do not depend on.
        unreached = torch.zeros(error.bias.mT.shape, dtype=torch.float64)
        divergences.append(found.get(name, unreached))
    # More bits never hurt, whatever the search for scales found.
    return torch.cat(divergences).cummin(1).values


@torch.no_grad()
def candidate_errors(
    network: Network,
    names: Sequence[str],
    images: Tensor,
    input: InputSpec,
    *,
    limit: int = 127,
    rounding: str = "gptq",
    tick: Callable[[], None] = lambda: None,
) -> dict[str, WeightErrors]:
    """Return the errors that rounding makes in each layer, at each of WEIGHT_BITS."""
    found: dict[str, WeightErrors] = {}
    if rounding == "nearest":
        for name in names:
            found[name] = _nearest_errors(network.get_parameter(f"{name}.weight").detach(), limit)
            tick()
        return found

    # One generator for all, so that the layers are seen at different positions.
    generator = torch.Generator().manual_seed(0)

    def fit(name: str, positions: Tensor, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        found[name] = _gptq_errors(layer, args[0], positions, limit)
        tick()

    with ExitStack() as hooks:
        for name in names:
            count = math.prod(_map_shape(network, name))
            positions = sample_positions(count, generator)
            hook = network.get_submodule(name).register_forward_pre_hook(
                partial(fit, name, positions)
            )
            hooks.callback(hook.remove)
        device = next(network.parameters()).device
        network(to_input(images.to(device), input))
    # Hooks ran in the order of the layers' runs.
    return {name: found[name] for name in names}


class _WeightProbe(ErrorProbe):
    """Records what the errors of a layer's channels would add: `changes` [out, bits, N]."""

    def __init__(self, errors: WeightErrors) -> None:
        super().__init__()
        self._errors = errors

    def watch(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Take the input of a layer that has run (forward hook)."""
        # A copy, since an in-place activation may overwrite the values.
        x = args[0].detach().clone()
        output.register_hook(partial(self._record, layer, x))  # type: ignore[no-untyped-call]

    def _record(self, layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
        by_channel = _positions_last(layer, gradient)
        sums = by_channel.sum(-1)
        changes = []
        for weight, bias in zip(self._errors.weight, self._errors.bias, strict=True):
            added = _positions_last(layer, _apply(layer, weight, x))
            products = (by_channel * added).sum(-1) + sums * bias
            changes.append(products.mT)
        self.add(torch.stack(changes, 1))


@contextmanager
def _watching(network: nn.Module, probes: Mapping[str, _WeightProbe]) -> Iterator[None]:
    """Let the probes watch the layers of their names."""
    with ExitStack() as hooks:
        for name, probe in probes.items():
            hook = network.get_submodule(name).register_forward_hook(probe.watch)
            hooks.callback(hook.remove)
        yield


def _draw_images(train: FaceDataset, config: QuantizeConfig, side: int) -> tuple[Tensor, Tensor]:
    """Return the images that the integers are fitted to, and those to measure on.

    Of images larger than 64 pixels a side there are fewer, as for the rounding itself.
    """
    count = config.calibration_count(WEIGHT_BITS[0])
    # The first are those that calibrate: a prefix of a balanced subset is one.
    images = train.balanced_subset(count + MEASURED_IMAGES, config.seed).images
    if len(images) < count + MEASURED_IMAGES:
        count = (len(images) + 1) // 2
    fitted = limit_images(images[:count][:FIT_IMAGES], side)
    measured = limit_images(images[count:], side)
    return fitted, measured if len(measured) else images


def _map_shape(network: Network, name: str) -> tuple[int, ...]:
    """Return the positions of a layer's output: its shape without the channels."""
    shape = network.shapes[name]
    return shape[:-1] if isinstance(network.get_submodule(name), nn.Linear) else shape[1:]


@torch.no_grad()
def _apply(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """Return what a layer of these weights, without a bias, makes of an input."""
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    assert isinstance(layer, nn.Conv2d)
    return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _positions_last(layer: nn.Module, output: Tensor) -> Tensor:
    """Return the output of a layer as [N, out, positions]."""
    output = to_channels_first(layer, output)
    return output.flatten(2) if output.dim() > 2 else output.unsqueeze(2)


def _nearest_errors(weight: Tensor, limit: int) -> WeightErrors:
    errors = []
    for bits in WEIGHT_BITS:
        limits = torch.tensor(WeightQuant((bits,), limit).limits(len(weight)), device=weight.device)
        scale = weight_scales(weight, limits, "mse")
        rounded = dequantize(integer_weight(weight, scale, limits), per_channel(scale, weight))
        errors.append(rounded - weight)
    return WeightErrors(torch.stack(errors), weight.new_zeros(len(WEIGHT_BITS), len(weight)))


def _gptq_errors(layer: nn.Module, x: Tensor, positions: Tensor, limit: int) -> WeightErrors:
    """Return the errors of GPTQ on the inputs x of a float layer, which fit its weights already."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach()
    mean, covariance = measure_inputs(layer, torch.split(x, _BATCH), positions.to(x.device))
    groups, fan_in = mean.shape
    rows = weight.double().reshape(groups, -1, fan_in)
    # An error in a weight counts by the variance of its input.
    importance = covariance.diagonal(dim1=1, dim2=2).repeat_interleave(rows.shape[1], 0)
    scales = []
    limits = []
    for bits in WEIGHT_BITS:
        bound = torch.tensor(WeightQuant((bits,), limit).limits(len(weight)), device=weight.device)
        scale = weight_scales(rows.reshape(len(weight), -1), bound, "mse", importance)
        scale = torch.where(scale > 0, scale, 1.0)
        scales.append(scale.double().reshape(groups, -1))
        limits.append(bound.reshape(groups, -1))

    # All numbers of bits at once, as further rows: the columns are what takes the time.
    every = rows.repeat(1, len(WEIGHT_BITS), 1)
    scale = torch.cat(scales, 1)
    order = rounding_order(covariance.diagonal(dim1=1, dim2=2))
    factor = ordered_factor_(covariance, order)
    integers = gptq_integers(every, scale, torch.cat(limits, 1), order, factor)
    errors = integers * scale[..., None] - every
    bias = -torch.einsum("grf,gf->gr", errors, mean)
    return WeightErrors(
        _by_bits(errors, groups).reshape(len(WEIGHT_BITS), *weight.shape).to(weight),
        _by_bits(bias, groups).reshape(len(WEIGHT_BITS), -1).to(weight),
    )


def _by_bits(rows: Tensor, groups: int) -> Tensor:
    """Return rows [groups, bits R, ...] with the bits ahead, [bits, groups, R, ...]."""
    split = rows.reshape(groups, len(WEIGHT_BITS), -1, *rows.shape[2:])
    return split.transpose(0, 1)
