"""Structured pruning: which channels matter, which are coupled, and the network without them."""

from fertool.prune.budget import Targets, UnreachableError
from fertool.prune.latency_model import LatencyModel, learn_latency
from fertool.prune.penalties import PenalizedObjective
from fertool.prune.planning import PrunePlan, channel_counts
from fertool.prune.profile_gate import measure_profile_usage
from fertool.prune.pruning_step import (
    Constraints,
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
from fertool.prune.schedule import RECOVERY, NoTrainer, Phase, Schedule, Trainer, load_schedule
from fertool.prune.session import PruningSession

__all__ = [
    "RECOVERY",
    "Constraints",
    "LatencyModel",
    "NoTrainer",
    "PenalizedObjective",
    "Phase",
    "PrunePlan",
    "PruneResult",
    "PruningSession",
    "PruningStep",
    "RoutedObjective",
    "Schedule",
    "Targets",
    "Trainer",
    "UnreachableError",
    "channel_counts",
    "learn_latency",
    "load_schedule",
    "measure_profile_usage",
    "plan",
    "plan_step",
    "prune",
    "require_float",
    "require_scorable",
    "score_channels",
]
