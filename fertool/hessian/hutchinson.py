"""Passes for traces of the Hessian of the cross-entropy against labels, by Hutchinson's estimator.

`Tr(H) = E[z^T H z]` for z of independent random signs, with `H z` from differentiating twice (Sun,
thesis, equations 4-3 to 4-9). One product serves all channels: the sum of `z * H z` over a
channel has the channel's trace as its mean, and the coupling of the channel with all others as
noise. The source's own form masks z to one channel at a time (4-8), which is less noisy and takes a
product for every channel. Weights and activations have products of their own; H is the sum over the
images of a batch, with respect to the activations a block for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fertool.errors import FertoolError
from fertool.hessian.layer_runs import (
    Pass,
    WeightedLayer,
    channel_slices,
    count_channels,
    run_layers,
)


class _TwiceDifferentiable(TorchFunctionMode):
    """While active, HardSigmoid is computed by ReLU6: PyTorch lacks its kernel's second derivative.

    Both have the same values, and a second derivative of 0 almost everywhere.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.hardsigmoid:
            func = _hardsigmoid
        return func(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


@dataclass(frozen=True)
class _Variable:
    """A layer's weights (row 0) or activation (row 1), and the loss's gradient with respect to it.

    `input` is what autograd differentiates with respect to, `channel_axis` the axis of the
    channels, and `columns` are their columns among the channels of all layers.
    """

    input: Tensor | GradientEdge
    gradient: Tensor
    row: int
    channel_axis: int
    columns: slice

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.gradient.shape[self.channel_axis]

    def draw_signs(self, generator: torch.Generator, channel: int | None = None) -> Tensor:
        """Return random signs; with a `channel`, zeros everywhere else."""
        signs = 2 * torch.randint(2, self.gradient.shape, generator=generator) - 1
        z = signs.to(self.gradient)
        if channel is None:
            return z
        mask = torch.zeros_like(z)
        mask.select(self.channel_axis, channel).fill_(1)
        return mask * z


_Draw = tuple[_Variable, Callable[[], torch.Generator]]
"""A variable and what returns the generator of its signs."""


def product_passes(
    module: nn.Module,
    layers: Mapping[str, WeightedLayer],
    images: Tensor,
    labels: Tensor,
    *,
    probes: int,
    masked: bool,
    generator: Callable[[int], torch.Generator],
) -> list[Pass]:
    """Return passes of one row, the batch: one for each probe or, masked, each probe and channel.

    `generator` returns the generator of each random draw, by the draw's number. The sums over the
    passes of z^T H z and of its square are those over the probes either way, as a masked pass adds
    0 to all channels but its own.
    """
    channels = count_channels(layers)
    variables = _variables(module, layers, images, labels)
    passes: list[Pass] = []
    for probe in range(probes):
        draws: list[_Draw] = []
        for index, variable in enumerate(variables):
            # Drawn when the pass runs: a resumed run skips passes without drawing for them.
            draw_number = probe * len(variables) + index
            draws.append((variable, partial(generator, draw_number)))
        if not masked:
            passes.append(partial(_measure_all, channels, draws))
            continue
        for draw in draws:
            for channel in range(draw[0].channels):
                passes.append(partial(_measure_channel, channels, draw, channel))
    return passes


def _variables(
    module: nn.Module, layers: Mapping[str, WeightedLayer], images: Tensor, labels: Tensor
) -> list[_Variable]:
    """Return the weights of all layers that run, then their activations."""
    # New leaves, so that frozen weights count and nothing of the network is touched.
    weights = {}
    for name, layer in layers.items():
        weights[f"{name}.weight"] = layer.weight.detach().requires_grad_()
    network = partial(functional_call, module, weights)
    with _TwiceDifferentiable():
        logits, runs = run_layers(network, layers, images)
    loss = F.cross_entropy(logits, labels, reduction="sum")

    targets: list[tuple[int, str, Tensor | GradientEdge]] = []
    for name in runs:
        targets.append((0, name, weights[f"{name}.weight"]))
    for name, run in runs.items():
        targets.append((1, name, run.edge))
    inputs: list[Any] = [input for _, _, input in targets]
    gradients: Sequence[Tensor | None] = torch.autograd.grad(
        loss, inputs, create_graph=True, allow_unused=True
    )
    slices = channel_slices(layers)
    variables = []
    for (row, name, input), gradient in zip(targets, gradients, strict=True):
        if gradient is None:
            continue
        # Weights are [out, ...], maps [N, out, H, W] and outputs of linear layers [..., out].
        axis = row
        if row == 1 and isinstance(layers[name], nn.Linear):
            axis = -1
        variables.append(_Variable(input, gradient, row, axis, slices[name]))
    return variables


def _measure_all(channels: int, draws: Sequence[_Draw]) -> Tensor:
    """Return the channel sums of `z * H z`, [2, 1, channels], for a probe of all variables.

    One product serves all weights and one all activations.
    """
    # Weights and activations apart: one product of both would add the block between them as noise.
    weights = []
    activations = []
    for variable, generator in draws:
        probe = (variable, variable.draw_signs(generator()))
        if variable.row == 0:
            weights.append(probe)
        else:
            activations.append(probe)
    return _channel_sums(channels, weights) + _channel_sums(channels, activations)


def _measure_channel(channels: int, draw: _Draw, channel: int) -> Tensor:
    """Return the channel sums of `z * H z`, [2, 1, channels], for a probe of one channel."""
    variable, generator = draw
    return _channel_sums(channels, [(variable, variable.draw_signs(generator(), channel))])


def _channel_sums(channels: int, probes: Sequence[tuple[_Variable, Tensor]]) -> Tensor:
    """Return the channel sums of `z * H z`, [2, 1, channels]; H is the block of the variables."""
    gradients: list[Tensor] = []
    inputs: list[Any] = []
    signs: list[Tensor] = []
    for variable, z in probes:
        gradients.append(variable.gradient)
        inputs.append(variable.input)
        signs.append(z)
    try:
        products: Sequence[Tensor | None] = torch.autograd.grad(
            gradients, inputs, signs, retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        if "derivative" not in str(error):
            raise
        raise FertoolError(
            f"the network has no second derivative ({error})",
            "use ``method=exact`` or probe, which need none",
        ) from None
    result = gradients[0].new_zeros(2, 1, channels)
    for (variable, z), product in zip(probes, products, strict=True):
        # None: the gradient does not depend on the variable, and its curvature is 0.
        if product is None:
            continue
        by_channel = (z * product).movedim(variable.channel_axis, 0).flatten(1)
        result[variable.row, 0, variable.columns] = by_channel.sum(1)
    return result
