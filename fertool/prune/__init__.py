"""Structured pruning: which channels matter, which can go together, and the smaller network without them."""

from fertool.prune.budget import Targets, UnreachableError
from fertool.prune.dynamic_schedule import dynamic, mean_budget, measure_shares, preview_profiles
from fertool.prune.latency_model import LatencyModel, learn_latency
from fertool.prune.penalties import Penalised
from fertool.prune.planning import PrunePlan, channel_counts
from fertool.prune.pruning_step import (
    DATA_FREE,
    ROUND_TO,
    PruneOptions,
    PruneResult,
    make_cut,
    plan,
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
    Shrinking,
    judged,
    prj,
)

__all__ = [
    "DATA_FREE",
    "RECOVERY",
    "ROUND_TO",
    "SCHEDULES",
    "LatencyModel",
    "Penalised",
    "Phase",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "RoutedObjective",
    "ScheduleOptions",
    "Shrinking",
    "Targets",
    "UnreachableError",
    "channel_counts",
    "dynamic",
    "judged",
    "learn_latency",
    "make_cut",
    "mean_budget",
    "measure_shares",
    "plan",
    "preview_profiles",
    "prj",
    "prune",
    "require_float",
    "require_scorable",
    "score_channels",
]
