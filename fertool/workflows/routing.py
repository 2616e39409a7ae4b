"""The logits of a dynamic network by profile, and what its choice of profiles is worth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fertool.reporter import SILENT, Reporter
from fertool.results import ProfileFigures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from fertool.data.dataset import FaceDataset
    from fertool.gate_spec import GateSpec, RoutingMetrics
    from fertool.models.cascade_network import CascadeNetwork
    from fertool.models.profile_network import ProfileNetwork
    from fertool.runtime import Predictor
    from fertool.spec import InputSpec, Spec

HALVES_SEED = 0
"""Divides the validation images into the halves that thresholds are cross-fitted on."""


@dataclass(frozen=True, eq=False)
class RoutedLogits:
    """The logits [profiles, N, K] of all profiles, and the profile [N] that each image gets."""

    logits: Tensor
    profiles: Tensor
    cross_fitted: bool = False

    @property
    def chosen(self) -> Tensor:
        """The logits [N, K] of the profiles that classify."""
        import torch

        return self.logits[self.profiles, torch.arange(len(self.profiles))]


def fair_logits(module: ProfileNetwork, images: FaceDataset, input: InputSpec) -> RoutedLogits:
    """Return the logits of images on which the thresholds of a cascade may be calibrated.

    The choices of a cascade are cross-fitted: a margin that costs the same as the module's own is
    calibrated on one half of the images and used on the other.
    """
    from fertool import cost
    from fertool.models.cascade_network import CascadeNetwork
    from fertool.pruning import profile_logits

    if not isinstance(module, CascadeNetwork):
        return routed_logits(module, images, input)
    logits = profile_logits(module, images, input)
    profiles = _cross_fitted_profiles(module, logits, cost.profile_macs(module, input))
    return RoutedLogits(logits, profiles, cross_fitted=True)


def routed_logits(module: ProfileNetwork, images: FaceDataset, input: InputSpec) -> RoutedLogits:
    """Return the logits of a network as it is, of images that nothing was calibrated on."""
    from fertool.pruning import choose_profiles, profile_logits

    logits = profile_logits(module, images, input)
    return RoutedLogits(logits, choose_profiles(module, images, input))


def routing_of(
    module: ProfileNetwork, routed: RoutedLogits, labels: Tensor, input: InputSpec
) -> RoutingMetrics:
    """Return what the choice of profiles is worth on labeled images."""
    from fertool import cost
    from fertool.routing_metrics import measure_routing

    correct = routed.logits.argmax(2) == labels
    macs = [cost.count(network, input).macs for network in module.networks]
    return measure_routing(
        correct.numpy(),
        routed.profiles.numpy(),
        macs,
        module.executed,
        cross_fitted=routed.cross_fitted,
    )


def measure_dynamic(
    spec: Spec, module: ProfileNetwork, val: FaceDataset, reporter: Reporter = SILENT
) -> tuple[Spec, Tensor]:
    """Return the spec with accuracy, shares and routing of a dynamic network on `val`.

    And the logits [N, K] of the profiles that classify. The shares of the module become those of
    its spec: its mean cost follows from them.
    """
    from fertool.metrics import evaluate_logits, to_metrics
    from fertool.pruning import measure_profile_usage
    from fertool.report.model_tables import routing_text

    assert spec.gates is not None
    module.shares = measure_profile_usage(module, val, spec.input)
    with reporter.progress(f"{val.split} images by profile", brief=True):
        routed = fair_logits(module, val, spec.input)
    evaluation = evaluate_logits(routed.chosen, val.labels, val.classes)
    gates = replace(
        spec.gates,
        shares=module.shares,
        routing=routing_of(module, routed, val.labels, spec.input),
    )
    assert gates.routing is not None
    reporter.note(f"{val.split} accuracy {routing_text(gates.routing)}")
    measured = replace(spec, metrics=to_metrics(evaluation, val.split), gates=gates)
    return measured, routed.chosen


def recalibrate_cascade(
    before: Spec, module: nn.Module, val: FaceDataset | None
) -> GateSpec | None:
    """Return the gates of another form of a dynamic network; those of a static one are None.

    A cascade gets, in place, the margin at which it costs as much as with the shares of `before`;
    without images it keeps its own.
    """
    from fertool import cost
    from fertool.models.cascade_network import CascadeNetwork
    from fertool.pruning import set_cascade_threshold

    gates = before.gates
    if gates is None or val is None or not isinstance(module, CascadeNetwork):
        return gates
    macs = cost.profile_macs(module, before.input)
    target = 0.0
    for share, each in zip(gates.shares, macs, strict=True):
        target += share * each
    # Shares are rounded numbers: an image less would go on otherwise.
    set_cascade_threshold(module, val, before.input, macs, target * (1 + 1e-6))
    return replace(gates, thresholds=module.thresholds)


def remeasured(spec: Spec, module: nn.Module, val: FaceDataset, reporter: Reporter) -> Spec:
    """Return the spec of a network that was trained further, with the figures of its profiles.

    A cascade gets, in place, the margin at which it costs what it did. Of a static network nothing
    changes: its training has measured it.
    """
    from fertool.models.profile_network import ProfileNetwork

    if not isinstance(module, ProfileNetwork):
        return spec
    gates = recalibrate_cascade(spec, module, val)
    measured, _ = measure_dynamic(replace(spec, gates=gates), module, val, reporter)
    return measured


def evaluate_profiles(
    predictor: Predictor,
    images: Any,
    labels: NDArray[np.int64],
    logits: NDArray[Any],
) -> tuple[tuple[ProfileFigures, ...], RoutingMetrics | None]:
    """Return the accuracy of each profile on its images, and what their choice is worth.

    The last is None where the runtime cannot run each profile on all images.
    """
    import numpy as np

    from fertool.routing_metrics import measure_routing
    from fertool.spec import affordable_batch

    spec, runs = predictor.spec, predictor.profiles
    assert spec is not None
    assert spec.gates is not None
    chosen = predictor.profiles_of(images)
    is_right = logits.argmax(1) == labels
    figures = []
    for profile in range(len(spec.gates.profiles)):
        own = is_right[chosen == profile]
        accuracy = float(own.mean()) if len(own) else None
        figures.append(ProfileFigures(profile, len(own) / len(chosen), len(own), accuracy))
    if runs is None:
        return tuple(figures), None

    correct = []
    # All profiles run on each batch, whose maps an image of any size could make large.
    step = affordable_batch(256, predictor.input.size)
    for start in range(0, len(images), step):
        batch = np.asarray(images[start : start + step], dtype=np.uint8)
        correct.append(runs.logits(batch).argmax(2) == labels[start : start + step])
    routing = measure_routing(np.concatenate(correct, 1), chosen, runs.macs, runs.executed)
    return tuple(figures), routing


def _cross_fitted_profiles(module: CascadeNetwork, logits: Tensor, macs: tuple[int, ...]) -> Tensor:
    import torch

    from fertool.pruning import cascade_profiles, cascade_threshold, profile_margins

    # At the same cost: another one would change the accuracy by itself.
    margins = profile_margins(logits)
    own = cascade_profiles(margins, module.thresholds)
    target = float(torch.tensor(macs, dtype=torch.float64)[own].mean())

    generator = torch.Generator().manual_seed(HALVES_SEED)
    order = torch.randperm(len(margins), generator=generator)
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    profiles = own.clone()
    for half, other in (halves, halves[::-1]):
        if len(other):
            threshold = cascade_threshold(margins[other], macs, target)
            thresholds = [threshold] * margins.shape[1]
            profiles[half] = cascade_profiles(margins[half], thresholds)
    return profiles
