"""The cost of a network: parameters and multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fertool.graph.counting import total_macs
from fertool.graph.network import Network
from fertool.inference import eval_mode
from fertool.spec import InputSpec


@dataclass(frozen=True)
class Cost:
    """`params` are the learned values, `macs` the multiply-accumulates of one image.

    Parameters are weights, biases, and scale and shift of batch norm. MACs are those of
    convolutions and linear layers, the papers' "FLOPs"; activations, batch norm and pooling are not
    counted.
    """

    params: int
    macs: int


def layer_macs(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-accumulates of a layer for one image.

    `output` is the layer's result [N, C, H, W] or [N, C], of which only the shape is read. Layers
    other than convolutions and linear ones have 0.
    """
    if isinstance(layer, nn.Conv2d):
        kernel_area = layer.kernel_size[0] * layer.kernel_size[1]
        macs_per_output = kernel_area * (layer.in_channels // layer.groups)
        return macs_per_output * output[0].numel()
    if isinstance(layer, nn.Linear):
        return layer.in_features * output[0].numel()
    return 0


@runtime_checkable
class GatedNetwork(Protocol):
    """A network that classifies each image by one of `networks`, which `gate` may have chosen.

    `shares` are the fractions of the images that each of them classifies, and `executed` has for
    each the networks that run for such an image.
    """

    gate: nn.Module | None
    networks: nn.ModuleList
    shares: tuple[float, ...]

    @property
    def executed(self) -> tuple[tuple[int, ...], ...]:
        """The networks that run for an image, by the one that classifies it."""


def count(module: nn.Module, input: InputSpec) -> Cost:
    """Return the cost of a float or quantized network.

    Where the work depends on the image, `macs` is the mean over images in the network's `shares`.
    """
    if isinstance(module, GatedNetwork):
        return _count_gated(module, input)
    if isinstance(module, Network):
        return Cost(count_parameters(module), total_macs(module))
    return Cost(count_parameters(module), _traced_macs(module, input))


def _count_gated(module: GatedNetwork, input: InputSpec) -> Cost:
    costs = [count(network, input) for network in module.networks]
    gate = Cost(0, 0) if module.gate is None else count(module.gate, input)
    params = gate.params + sum(cost.params for cost in costs)
    mean_macs = 0.0
    for executed, share in zip(module.executed, module.shares, strict=True):
        mean_macs += share * sum(costs[index].macs for index in executed)
    return Cost(params, gate.macs + round(mean_macs))


def profile_macs(module: GatedNetwork, input: InputSpec) -> tuple[int, ...]:
    """Return the multiply-accumulates of an image by the profile that it gets, the gate's too.

    Of a cascade they include those of the narrower profiles, which have run before.
    """
    gate = 0 if module.gate is None else count(module.gate, input).macs
    macs = [count(network, input).macs for network in module.networks]
    by_profile = []
    for executed in module.executed:
        by_profile.append(gate + sum(macs[index] for index in executed))
    return tuple(by_profile)


def _traced_macs(module: nn.Module, input: InputSpec) -> int:
    """Return the multiply-accumulates of a module that is no graph, by running it on one image."""
    macs = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs
        macs += layer_macs(layer, output)

    hooks = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            hooks.append(layer.register_forward_hook(add))
    try:
        # On the meta device shapes are computed without any arithmetic.
        state = {name: tensor.to("meta") for name, tensor in module.state_dict().items()}
        image = torch.empty(1, input.channels, input.size, input.size, device="meta")
        with eval_mode(module):
            torch.func.functional_call(module, state, image)
    finally:
        for hook in hooks:
            hook.remove()
    return macs


def count_parameters(module: nn.Module) -> int:
    """Return the number of learned values; a quantized layer has those of the float layer."""
    float_params = getattr(module, "float_params", None)
    if float_params is not None:
        return int(float_params)
    return sum(p.numel() for p in module.parameters())
