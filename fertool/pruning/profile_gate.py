"""The thresholds of dynamic networks: gates and cascades whose mean cost is what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fertool.data.pixels import to_input
from fertool.inference import eval_mode
from fertool.models.cascade_network import CascadeNetwork, margins_of
from fertool.models.dynamic_network import DynamicNetwork
from fertool.models.profile_network import ProfileNetwork
from fertool.spec import InputSpec, affordable_batch

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


def set_cascade_threshold(
    module: CascadeNetwork,
    data: FaceDataset,
    input: InputSpec,
    costs: Sequence[float],
    target: float,
) -> None:
    """Give all profiles of a cascade the margin at which the images cost `target` or just less."""
    logits = profile_logits(module, data, input)
    threshold = cascade_threshold(profile_margins(logits), costs, target)
    module.thresholds = (threshold,) * (len(module.networks) - 1)


@torch.no_grad()
def profile_logits(module: ProfileNetwork, data: FaceDataset, input: InputSpec) -> Tensor:
    """Return the logits [profiles, N, K] of every profile for all images."""
    return torch.stack(
        [_run_in_batches(module, network, data, input) for network in module.networks]
    )


def profile_margins(logits: Tensor) -> Tensor:
    """Return the margins [N, profiles - 1] of all profiles but the widest.

    `logits` are [profiles, N, K].
    """
    return torch.stack([margins_of(profile) for profile in logits[1:]], 1)


def cascade_threshold(margins: Tensor, costs: Sequence[float], target: float) -> float:
    """Return the largest margin to ask for at which the mean cost is at most `target`.

    `margins` are [N, profiles - 1], `costs` those of an image by the profile that classifies it.
    Without any images above the narrowest profile where that costs more than the target.
    """
    cost_of_profile = torch.tensor(costs, dtype=torch.float64)
    values = margins.flatten().double().sort().values
    # Between two margins, so that no rounding of another runtime sends an image elsewhere.
    between = (values[1:] + values[:-1]) / 2
    candidates = torch.cat([torch.zeros(1), between, values[-1:] + 1])

    def mean_cost(index: int) -> float:
        thresholds = [float(candidates[index])] * margins.shape[1]
        profiles = cascade_profiles(margins, thresholds)
        return float(cost_of_profile[profiles].mean())

    # The mean cost grows with the threshold, since more images go on.
    low, high = 0, len(candidates) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if mean_cost(middle) <= target:
            low = middle
        else:
            high = middle - 1
    return float(candidates[low])


def cascade_profiles(margins: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Return the profile int64 [N] that classifies each image.

    `margins` are [N, profiles - 1], `thresholds` one for each of these profiles.
    """
    narrowest = margins.shape[1]
    profiles = torch.full((len(margins),), narrowest)
    for index in reversed(range(narrowest)):
        goes_on = (profiles == index + 1) & (margins[:, index] < thresholds[index])
        profiles[goes_on] = index
    return profiles


def _run_in_batches(
    module: nn.Module,
    compute: Callable[[Tensor], Tensor],
    data: FaceDataset,
    input: InputSpec,
) -> Tensor:
    """Return what a part of the network computes on all images, in inference mode."""
    results = []
    with eval_mode(module):
        for batch in torch.split(data.images, affordable_batch(_BATCH, input.size)):
            results.append(compute(to_input(batch, input)))
    return torch.cat(results)


@torch.no_grad()
def choose_profiles(module: ProfileNetwork, data: FaceDataset, input: InputSpec) -> Tensor:
    """Return the profile int64 [N] that classifies each image."""
    return _run_in_batches(module, module.choose, data, input)


def measure_profile_usage(
    module: ProfileNetwork, data: FaceDataset, input: InputSpec
) -> tuple[float, ...]:
    """Return the fraction of the images that each profile classifies."""
    choices = choose_profiles(module, data, input)
    counts = torch.bincount(choices, minlength=len(module.networks))
    return tuple((counts / len(choices)).tolist())
