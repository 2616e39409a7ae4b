"""Passes for traces of the Hessian of the cross-entropy against labels, by Hutchinson's estimator.

`Tr(H) = E[z^T H z]` for z of independent random signs, with `H z` from differentiating twice (Sun's thesis on HAWQC,
equations 4-3 to 4-9). One product serves all channels: the sum of `z * H z` over a channel has the channel's trace as
its mean, and the coupling of the channel with all others as noise. The source's own form masks z to one channel at a
time (4-8), which is less noisy and takes a product for every channel. Weights and activations have products of their
own; H is the sum over the images of a batch, with respect to the activations a block for each of them.
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
from fertool.hessian.layers import Layer, Pass, channel_slices, run_layers


class _TwiceDifferentiable(TorchFunctionMode):
    """While active, a HardSigmoid is computed from a ReLU6: PyTorch has no second derivative of its own kernel.

    Both have the same values, and a second derivative of 0 almost everywhere.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_hardsigmoid if func is F.hardsigmoid else func)(*args, **(kwargs or {}))


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(input + 3) / 6


@dataclass(frozen=True)
class _Point:
    """A layer's weights (row 0) or activation (row 1): its place in the graph and the loss's gradient there.

    `axis` is that of the channels, `columns` where these stand among those of all layers.
    """

    place: Tensor | GradientEdge
    gradient: Tensor
    row: int
    axis: int
    columns: slice

    def signs(self, generator: torch.Generator, channel: int | None = None) -> Tensor:
        """Return random signs, all of them or, for one channel, zeros elsewhere."""
        z = (2 * torch.randint(2, self.gradient.shape, generator=generator) - 1).to(self.gradient)
        if channel is None:
            return z
        mask = torch.zeros_like(z)
        mask.select(self.axis, channel).fill_(1)
        return mask * z


def product_passes(
    module: nn.Module,
    layers: Mapping[str, Layer],
    images: Tensor,
    labels: Tensor,
    *,
    probes: int,
    masked: bool,
    generator: Callable[[int], torch.Generator],
) -> list[Pass]:
    """Return passes of one row, the batch: one for each probe or, masked, for each probe and channel.

    `generator` gives each random draw its own, by the draw's number. The sums over the passes of z^T H z and of its
    square are those over the probes either way, as a masked pass adds 0 to all channels but its own.
    """
    width = sum(len(layer.weight) for layer in layers.values())
    points = _points(module, layers, images, labels)
    passes: list[Pass] = []
    for probe in range(probes):
        draws = [
            (point, partial(generator, probe * len(points) + index))
            for index, point in enumerate(points)
        ]
        if masked:
            passes += [
                partial(_one_channel, width, point, draw, channel)
                for point, draw in draws
                for channel in range(point.gradient.shape[point.axis])
            ]
        else:
            passes.append(partial(_all_channels, width, draws))
    return passes


def _points(
    module: nn.Module, layers: Mapping[str, Layer], images: Tensor, labels: Tensor
) -> list[_Point]:
    # Leaves of their own, so that frozen weights count and nothing of the network is touched.
    weights = {name: layer.weight.detach().requires_grad_() for name, layer in layers.items()}
    network = partial(
        functional_call, module, {f"{name}.weight": weight for name, weight in weights.items()}
    )
    with _TwiceDifferentiable():
        logits, runs = run_layers(network, layers, images)
    loss = F.cross_entropy(logits, labels, reduction="sum")
    places: list[Any] = [*(weights[name] for name in runs), *(run.edge for run in runs.values())]
    gradients = torch.autograd.grad(loss, places, create_graph=True, allow_unused=True)
    names, slices = list(runs), channel_slices(layers)
    points = []
    for index, (place, gradient) in enumerate(zip(places, gradients, strict=True)):
        row, number = divmod(index, len(names))
        name = names[number]
        axis = -1 if row and isinstance(layers[name], nn.Linear) else row
        if gradient is not None:
            points.append(_Point(place, gradient, row, axis, slices[name]))
    return points


def _all_channels(
    width: int, draws: Sequence[tuple[_Point, Callable[[], torch.Generator]]]
) -> Tensor:
    """Return the channel sums of `z * H z` from one product for all weights and one for all activations."""
    weights, activations = (
        [(p, p.signs(draw())) for p, draw in draws if p.row == row] for row in (0, 1)
    )
    return _curvatures(width, weights) + _curvatures(width, activations)


def _one_channel(
    width: int, point: _Point, draw: Callable[[], torch.Generator], channel: int
) -> Tensor:
    return _curvatures(width, [(point, point.signs(draw(), channel))])


def _curvatures(width: int, probes: Sequence[tuple[_Point, Tensor]]) -> Tensor:
    """Return the channel sums of `z * H z`, [2, 1, width], H being the block of the points that are given."""
    gradients = [point.gradient for point, _ in probes]
    places: list[Any] = [point.place for point, _ in probes]
    try:
        products = torch.autograd.grad(
            gradients, places, [z for _, z in probes], retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        if "derivative" not in str(error):
            raise
        raise FertoolError(
            f"the network has no second derivative ({error})",
            "use --method exact or probe, which need none",
        ) from None
    result = gradients[0].new_zeros(2, 1, width)
    for (point, z), product in zip(probes, products, strict=True):
        if product is not None:
            result[point.row, 0, point.columns] = (
                (z * product).movedim(point.axis, 0).flatten(1).sum(1)
            )
    return result
