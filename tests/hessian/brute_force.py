"""Small networks in float64, and the traces of their Hessians by differentiating twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fertool.config.sensitivity import TraceConfig
from fertool.hessian import Sensitivity, estimate_traces


def small_net(activation: type[nn.Module], seed: int = 0) -> nn.Sequential:
    """All kinds of layers, few positions and many, in-place activations, BN with statistics."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        activation(inplace=True),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        activation(inplace=True),
        nn.Conv2d(4, 6, 1),
        nn.BatchNorm2d(6),
        activation(inplace=True),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2, padding_mode="reflect"),
        activation(inplace=True),
        nn.Conv2d(4, 3, (3, 1), padding="same"),
        nn.Flatten(),
        nn.Linear(27, 5),
        activation(),
        nn.Linear(5, 4),
    ).double()
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(-2, 2)
                layer.bias.normal_()
        net[-1].weight *= 4
    return net.eval()


def images(count: int, seed: int = 1, size: int = 6) -> Tensor:
    return torch.randn(
        count, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


LABELS = torch.tensor([0, 3, 1, 2]).repeat(16)


def measure(net: nn.Module, x: Tensor, labels: Tensor = LABELS, **options: Any) -> Sensitivity:
    return estimate_traces(net, x, labels[: len(x)], TraceConfig(**options))


def loss_of(net: nn.Module, x: Tensor, hessian: str) -> Callable[[Tensor], Tensor]:
    """The mean over images of what the Hessian is of, as a function of the logits."""
    target = net(x).detach().log_softmax(-1)
    if hessian == "kl":
        return lambda logits: (target.exp() * (target - logits.log_softmax(-1))).sum() / len(x)
    return lambda logits: nn.functional.cross_entropy(logits, LABELS[: len(x)])


def brute_force_traces(net: nn.Module, x: Tensor, name: str, hessian: str = "kl") -> Tensor:
    """Channel sums of the diagonal of d^2 loss / d weight^2, by differentiating twice."""
    loss = loss_of(net, x, hessian)

    def of_weight(weight: Tensor) -> Tensor:
        return loss(torch.func.functional_call(net, {f"{name}.weight": weight}, x))

    weight = net.get_submodule(name).weight.detach()
    second = torch.autograd.functional.hessian(of_weight, weight).reshape(
        weight.numel(), weight.numel()
    )
    return second.diagonal().reshape(len(weight), -1).sum(1)


def brute_force_activation_traces(
    net: nn.Module, x: Tensor, name: str, hessian: str = "kl"
) -> Tensor:
    """Channel sums of the diagonal of d^2 loss / d activation^2, mean over images."""
    layer, loss = net.get_submodule(name), loss_of(net, x, hessian)
    seen = []
    hook = layer.register_forward_hook(lambda _, args, output: seen.append(output.detach().clone()))
    logits = net(x).detach()
    hook.remove()
    traces = []
    for index, activation in enumerate(seen[0]):

        def of_activation(value: Tensor, index: int = index) -> Tensor:
            hook = layer.register_forward_hook(lambda _, args, output: value[None].clone())
            others = logits.clone()
            others[index] = net(x[index : index + 1])[0]
            hook.remove()
            return loss(others) * len(x)

        second = torch.autograd.functional.hessian(of_activation, activation)
        diagonal = (
            second.reshape(activation.numel(), activation.numel())
            .diagonal()
            .reshape(activation.shape)
        )
        channels = diagonal.movedim(-1, 0) if isinstance(layer, nn.Linear) else diagonal
        traces.append(channels.reshape(len(channels), -1).sum(1))
    return torch.stack(traces).mean(0)


def brute_force(
    net: nn.Module, x: Tensor, names: Iterable[str], hessian: str = "kl"
) -> dict[str, np.ndarray]:
    return {
        "weight_trace": np.concatenate(
            [brute_force_traces(net, x, name, hessian) for name in names]
        ),
        "activation_trace": np.concatenate(
            [brute_force_activation_traces(net, x, name, hessian) for name in names]
        ),
    }


def values(found: Sensitivity, key: str = "weight_trace") -> np.ndarray:
    return np.concatenate([getattr(layer, key) for layer in found.layers])


NAMES = ["0", "3", "5", "8", "10", "12", "14"]
TRACES = ["weight_trace", "activation_trace"]
