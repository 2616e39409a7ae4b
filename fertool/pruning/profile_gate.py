"""The gate of a dynamic network: its threshold, and how often it chooses each profile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fertool.data.pixels import to_input
from fertool.inference import eval_mode
from fertool.models.dynamic_network import DynamicNetwork
from fertool.spec import InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_BATCH = 256
# Halvings of the interval of thresholds: float64 resolves no more.
_BISECTIONS = 60
_LARGEST_THRESHOLD = 1e6


@torch.no_grad()
def set_threshold(
    module: DynamicNetwork,
    data: FaceDataset,
    input: InputSpec,
    costs: tuple[float, ...],
    target: float,
) -> None:
    """Shift the gate's logits by `-t cost`, with t such that the mean cost is at most `target`.

    t is the smallest, to within rounding, so that the images cost `target` or just less.
    """
    logits = _run_in_batches(module, module.gate, data, input)
    cost_of_profile = torch.tensor(costs)

    def mean_cost(threshold: float) -> float:
        choices = (logits - threshold * cost_of_profile).argmax(1)
        return float(cost_of_profile[choices].mean())

    # The mean cost falls as t grows: first bounds on both sides of the target, then bisection.
    low, high = -1.0, 1.0
    while mean_cost(low) < target and low > -_LARGEST_THRESHOLD:
        low *= 2
    while mean_cost(high) > target and high < _LARGEST_THRESHOLD:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if mean_cost(middle) > target:
            low = middle
        else:
            high = middle

    bias = module.gate.get_submodule("fc2").get_parameter("bias")
    # In the bias, so that files and runtimes know nothing of a threshold.
    bias.sub_(high * cost_of_profile.to(bias))


def _run_in_batches(
    module: DynamicNetwork,
    compute: Callable[[Tensor], Tensor],
    data: FaceDataset,
    input: InputSpec,
) -> Tensor:
    """Return what a part of the network computes on all images, in inference mode."""
    results = []
    with eval_mode(module):
        for batch in torch.split(data.images, _BATCH):
            results.append(compute(to_input(batch, input)))
    return torch.cat(results)


@torch.no_grad()
def measure_profile_usage(
    module: DynamicNetwork, data: FaceDataset, input: InputSpec
) -> tuple[float, ...]:
    """Return the fraction of the images that each profile gets."""
    choices = _run_in_batches(module, module.choose, data, input)
    counts = torch.bincount(choices, minlength=len(module.networks))
    return tuple((counts / len(choices)).tolist())
