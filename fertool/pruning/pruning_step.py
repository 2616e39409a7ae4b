"""One pruning step: score, plan, remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from fertool.config.pruning import SelectionConfig
from fertool.errors import FertoolError, UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.network import Network
from fertool.graph.surgery import remove_channels, surviving_rows
from fertool.pruning.budget import Targets
from fertool.pruning.criterion import Scores, load_criterion
from fertool.pruning.latency_model import NO_LATENCY, LatencyModel
from fertool.pruning.planning import PrunePlan, make_plan
from fertool.pruning.reconstruction import reconstruct
from fertool.spec import InputSpec, Spec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset


@dataclass(frozen=True)
class Constraints:
    """What the pruned network must meet.

    Without `targets` only a schedule that measures accuracy can work. `floors` are channel counts
    that some groups, named by their first layer, must keep. `latency` predicts the time of a
    network of other widths, for a target in seconds.
    """

    targets: Targets | None = None
    floors: Mapping[str, int] = field(default_factory=dict)
    latency: LatencyModel = NO_LATENCY


@dataclass(frozen=True)
class PruneResult:
    """The pruned network and the plan that was applied."""

    module: Network
    plan: PrunePlan


@dataclass(frozen=True, eq=False)
class PruningStep:
    """What will be removed from a network: the plan, and what applying it takes.

    `reconstruction_images`, uint8 [N, C, S, S], are those on which the layers are reconstructed
    afterwards; None for no reconstruction.
    """

    graph: ChannelGraph
    plan: PrunePlan
    skeleton: Network
    pruned: ChannelGraph
    input: InputSpec
    reconstruction_images: Tensor | None = None

    def apply(
        self, module: Network, on_progress: Callable[[int, int], None] | None = None
    ) -> Network:
        """Return the smaller network with the present weights of `module`, which is not changed.

        Once only, since the skeleton becomes that network. `on_progress` counts reconstructed
        layers.
        """
        kept = self.plan.kept
        smaller = remove_channels(module, self.graph, self.skeleton, self.pruned, kept)
        if self.reconstruction_images is not None:
            reconstruct(
                module,
                smaller,
                self.graph,
                surviving_rows(self.graph, self.pruned, kept),
                self.reconstruction_images,
                self.input,
                on_progress,
            )
        return smaller


def plan_step(
    spec: Spec,
    module: Network,
    constraints: Constraints,
    selection: SelectionConfig = SelectionConfig(),
    data: FaceDataset | None = None,
    *,
    scored: tuple[ChannelGraph, Scores] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PruningStep:
    """Score the channels, unless they are `scored`, and choose what to remove.

    `module` is the float network of `spec`, which is not changed; `data`, for the criteria that
    need it, has the images to score on. Raises UsageError for options that make no sense and
    FertoolError for networks or targets that cannot be pruned.
    """
    if constraints.targets is None:
        raise UsageError("no budget", "give one, for example ``target_flops=0.5``")
    selection = selection.resolved(has_images=data is not None)
    graph, scores = scored or score_channels(spec, module, selection, data, on_progress)
    round_to = selection.channel_multiple
    plan, skeleton, pruned = make_plan(
        module,
        graph,
        scores,
        constraints.targets,
        round_to,
        latency=constraints.latency.for_rounding(round_to),
        floors=constraints.floors,
    )
    images = None
    if selection.reconstruct:
        if data is None:
            raise UsageError("``reconstruct`` needs images", "give ``data``")
        images = data.images
    return PruningStep(graph, plan, skeleton, pruned, spec.input, images)


def plan(
    spec: Spec,
    module: Network,
    constraints: Constraints,
    selection: SelectionConfig = SelectionConfig(),
    data: FaceDataset | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrunePlan:
    """Return the plan that `prune` would apply; raises as `plan_step` does."""
    return plan_step(spec, module, constraints, selection, data, on_progress=on_progress).plan


def prune(
    spec: Spec,
    module: Network,
    constraints: Constraints,
    selection: SelectionConfig = SelectionConfig(),
    data: FaceDataset | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PruneResult:
    """Remove the least important channels until the targets are met, in one step, without training.

    Raises as `plan_step` does; the module is not changed.
    """
    step = plan_step(spec, module, constraints, selection, data, on_progress=on_progress)
    return PruneResult(step.apply(module), step.plan)


def score_channels(
    spec: Spec,
    module: Network,
    selection: SelectionConfig,
    data: FaceDataset | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ChannelGraph, Scores]:
    """Return the channels of a network and their importance; raises as `plan_step` does."""
    selection = selection.resolved(has_images=data is not None)
    require_scorable(spec, selection, has_data=data is not None)
    graph = trace_channels(module)
    scores = load_criterion(selection.criterion).score(
        module,
        graph,
        data,
        spec.input,
        normalization=selection.score_normalization,
        on_progress=on_progress,
    )
    return graph, scores


def require_float(spec: Spec) -> None:
    """Raise FertoolError for a network that is quantized already."""
    if spec.quant is not None:
        raise FertoolError(
            "the model is quantized already", "prune the float model, then quantize it"
        )


def require_scorable(spec: Spec, selection: SelectionConfig, *, has_data: bool) -> None:
    """Raise at once what scoring would: UsageError for options, FertoolError for networks."""
    require_float(spec)
    spec.require_static("scored")
    criterion = selection.resolved(has_images=has_data).criterion
    if load_criterion(criterion).needs_images and not has_data:
        raise UsageError(
            f"``criterion={criterion}`` needs images", "give ``data``, or ``criterion=l1``"
        )
