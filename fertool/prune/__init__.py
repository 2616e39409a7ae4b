"""Structured pruning: which channels matter, which are coupled, and the network without them."""

from fertool.prune.budget import Targets, UnreachableError
from fertool.prune.dynamic_schedule import (
    dynamic,
    mean_macs_budget,
    measure_profile_usage,
    preview_profiles,
)
from fertool.prune.latency_model import LatencyModel, learn_latency
from fertool.prune.penalties import PenalizedObjective
from fertool.prune.planning import PrunePlan, channel_counts
from fertool.prune.pruning_step import (
    DATA_FREE,
    ROUND_TO,
    PruneOptions,
    PruneResult,
    PruningStep,
    plan,
    plan_step,
    prune,
    require_float,
    require_scorable,
    score_channels,
)
from fertool.prune.routing_objective import RoutedObjective
from fertool.prune.schedules import (
    RECOVERY,
    SCHEDULES,
    Phase,
    ScheduleOptions,
    prj,
    prune_to_accuracy,
)
from fertool.prune.session import PruningSession

__all__ = [
    "DATA_FREE",
    "RECOVERY",
    "ROUND_TO",
    "SCHEDULES",
    "LatencyModel",
    "PenalizedObjective",
    "Phase",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "PruningSession",
    "PruningStep",
    "RoutedObjective",
    "ScheduleOptions",
    "Targets",
    "UnreachableError",
    "channel_counts",
    "dynamic",
    "learn_latency",
    "mean_macs_budget",
    "measure_profile_usage",
    "plan",
    "plan_step",
    "preview_profiles",
    "prj",
    "prune",
    "prune_to_accuracy",
    "require_float",
    "require_scorable",
    "score_channels",
]
