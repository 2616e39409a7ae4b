"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence
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
    """`params`: learned values (weights, biases, BN scale and shift); `macs`: multiply-accumulates of one image.

    Convolutions and linear layers are counted, as in the papers' "FLOPs"; activations, BN and pooling are not.
    """

    params: int
    macs: int


def layer_macs(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-accumulates of one convolution or linear layer for one image; 0 for any other layer.

    `output` is the layer's result, shape [N, C, H, W] or [N, C]; only its shape is read.
    """
    if isinstance(layer, nn.Conv2d):
        taps = layer.kernel_size[0] * layer.kernel_size[1] * (layer.in_channels // layer.groups)
        return taps * output[0].numel()
    if isinstance(layer, nn.Linear):
        return layer.in_features * output[0].numel()
    return 0


@runtime_checkable
class Branching(Protocol):
    """A network that sends each image through `gate` and one of `networks`, the `shares` of the images through each."""

    gate: nn.Module
    networks: Sequence[nn.Module]
    shares: tuple[float, ...]


def count(module: nn.Module, input: InputSpec) -> Cost:
    """Count a float or quantized network; one that is no graph by running its shapes, without arithmetic, on one image.

    Where the work depends on the image `macs` is the mean over the images of which the shares tell.
    """
    if isinstance(module, Branching):
        gate, parts = (
            count(module.gate, input),
            [count(network, input) for network in module.networks],
        )
        mean = sum(share * part.macs for share, part in zip(module.shares, parts, strict=True))
        return Cost(gate.params + sum(part.params for part in parts), gate.macs + round(mean))
    if isinstance(module, Network):
        return Cost(parameters(module), total_macs(module))
    macs = 0

    def add(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs
        macs += layer_macs(layer, output)

    hooks = [
        m.register_forward_hook(add)
        for m in module.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    try:
        state = {name: tensor.to("meta") for name, tensor in module.state_dict().items()}
        image = torch.empty(1, input.channels, input.size, input.size, device="meta")
        with eval_mode(module):
            torch.func.functional_call(module, state, image)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(parameters(module), macs)


def parameters(module: nn.Module) -> int:
    """Return the number of learned values; a quantised layer's count as many as the float layer's."""
    counts = getattr(module, "float_params", None)
    return int(counts) if counts is not None else sum(p.numel() for p in module.parameters())
