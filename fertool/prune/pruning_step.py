"""Prune once: score, plan, remove."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.network import Network
from fertool.graph.surgery import remove_channels, surviving_rows
from fertool.prune.budget import Targets
from fertool.prune.criteria import (
    GATE_CRITERIA,
    WEIGHT_CRITERIA,
    Scores,
    gate_scores,
    weight_scores,
)
from fertool.prune.latency_model import NO_TIME, LatencyModel
from fertool.prune.planning import PrunePlan, make_plan
from fertool.prune.reconstruction import reconstruct
from fertool.spec import InputSpec, Spec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

CRITERIA = (*WEIGHT_CRITERIA, *GATE_CRITERIA)
DATA_FREE = "l1"
ROUND_TO = 16
Normalise = Literal["auto", "layer", "none"]


@dataclass(frozen=True)
class PruneOptions:
    """How to prune: what may remain, by which criterion, in steps of how many channels.

    `latency` says what a network of other widths takes, for a target in seconds. Without targets only a schedule that
    has a judge can work.

    `normalise` says how scores compare across layers: relative to what their layer has ("layer"), as they are ("none"),
    or as suits the criterion ("auto"): changes of the loss as they are, sizes of weights relative to their layer.

    `local_retrain` repairs the layers after each cut, on the images that score the channels (`reconstruct`). `floors`
    are the numbers of channels that some groups, by their first layer, do not go below.
    """

    targets: Targets | None
    criterion: str = DATA_FREE
    normalise: Normalise = "auto"
    round_to: int = ROUND_TO
    latency: LatencyModel = NO_TIME
    local_retrain: bool = False
    floors: Mapping[str, int] = field(default_factory=dict)

    @property
    def clock(self) -> LatencyModel:
        """The latency by which widths are chosen, in these steps."""
        return self.latency.in_steps_of(self.round_to)


@dataclass(frozen=True)
class PruneResult:
    """The pruned network and the plan that was carried out."""

    module: Network
    plan: PrunePlan


@dataclass(frozen=True, eq=False)
class Cut:
    """What is going to be removed from a network: the plan, and what carrying it out takes.

    `repair` are images uint8 [N, C, S, S] on which the layers are repaired afterwards, if they are.
    """

    graph: ChannelGraph
    plan: PrunePlan
    skeleton: Network
    pruned: ChannelGraph
    input: InputSpec
    repair: Tensor | None = None

    def carry_out(
        self, module: Network, on_progress: Callable[[int, int], None] | None = None
    ) -> Network:
        """Return the smaller network with the weights that `module`, which is not changed, has by now; once only.

        `on_progress` counts repaired layers.
        """
        smaller = remove_channels(module, self.graph, self.skeleton, self.pruned, self.plan.kept)
        if self.repair is not None:
            rows = surviving_rows(self.graph, self.pruned, self.plan.kept)
            reconstruct(module, smaller, self.graph, rows, self.repair, self.input, on_progress)
        return smaller


def make_cut(
    spec: Spec,
    module: Network,
    options: PruneOptions,
    data: FaceDataset | None = None,
    *,
    scored: tuple[ChannelGraph, Scores] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Cut:
    """Score the channels, unless they are `scored`, and choose which go; the module is not changed.

    `module` is the float network of `spec`; `data`, for the criteria that need it, is what their sums run over. Raises
    UsageError for options that make no sense and FertoolError for networks or targets that cannot be pruned.
    """
    if options.targets is None:
        raise UsageError("no budget", "say how much may remain, for example --target-flops 0.5")
    graph, scores = scored or score_channels(spec, module, options, data, on_progress)
    planned = make_plan(
        *(module, graph, scores, options.targets, options.round_to),
        latency=options.clock,
        floors=options.floors,
    )
    if options.local_retrain and data is None:
        raise UsageError("--local-retrain needs images", "give --data")
    return Cut(graph, *planned, spec.input, data.images if data and options.local_retrain else None)


def plan(
    spec: Spec,
    module: Network,
    options: PruneOptions,
    data: FaceDataset | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrunePlan:
    """Return what `prune` would do; raises as `make_cut` does."""
    return make_cut(spec, module, options, data, on_progress=on_progress).plan


def prune(
    spec: Spec,
    module: Network,
    options: PruneOptions,
    data: FaceDataset | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> PruneResult:
    """Remove the least important channels until the targets are met, in one step and without retraining.

    Raises as `make_cut` does; the module is not changed.
    """
    cut = make_cut(spec, module, options, data, on_progress=on_progress)
    return PruneResult(cut.carry_out(module), cut.plan)


def score_channels(
    spec: Spec,
    module: Network,
    options: PruneOptions,
    data: FaceDataset | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[ChannelGraph, Scores]:
    """Return the channels of a network and how much each matters; raises as `make_cut` does."""
    require_scorable(spec, options, has_data=data is not None)
    graph = trace_channels(module)
    if data is None or options.criterion in WEIGHT_CRITERIA:
        return graph, weight_scores(
            module, graph, options.criterion, relative=options.normalise != "none"
        )
    scores = gate_scores(
        module, graph, options.criterion, data, spec.input, on_progress=on_progress
    )
    return graph, replace(scores, additive=options.normalise != "layer")


def require_float(spec: Spec) -> None:
    """Raise FertoolError for a network that is quantised or dynamic already."""
    if spec.quant is not None:
        raise FertoolError(
            "the model is quantised already", "prune the float model, then quantise it"
        )
    spec.require_static("pruned again")


def require_scorable(spec: Spec, options: PruneOptions, *, has_data: bool) -> None:
    """Raise UsageError for options that make no sense and FertoolError for networks that cannot be pruned; at once."""
    if options.criterion not in CRITERIA:
        raise unknown_name("--criterion", options.criterion, CRITERIA)
    if options.round_to < 1:
        raise UsageError(
            f"--round-to {options.round_to}: not a number of channels",
            "1 leaves widths as they come",
        )
    require_float(spec)
    if options.normalise not in get_args(Normalise):
        raise unknown_name("--normalise", options.normalise, get_args(Normalise))
    if options.criterion in GATE_CRITERIA and not has_data:
        raise UsageError(
            f"--criterion {options.criterion} needs images", "give --data, or take --criterion l1"
        )
