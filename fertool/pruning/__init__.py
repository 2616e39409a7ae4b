"""Structured pruning: which channels matter, which are coupled, and the network without them."""

from fertool.pruning.budget import Targets, UnreachableError
from fertool.pruning.latency_model import LatencyModel, learn_latency
from fertool.pruning.penalties import PenalizedObjective
from fertool.pruning.planning import PrunePlan, channel_counts
from fertool.pruning.profile_gate import (
    cascade_profiles,
    cascade_threshold,
    choose_profiles,
    measure_profile_usage,
    profile_logits,
    profile_margins,
    set_cascade_threshold,
)
from fertool.pruning.profiles_session import ProfilesSession
from fertool.pruning.pruning_step import (
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
from fertool.pruning.routing_objective import ProfilesObjective, RoutedObjective, for_profiles
from fertool.pruning.schedule import (
    RECOVERY,
    AnySession,
    NoTrainer,
    Phase,
    ProfileSchedule,
    Schedule,
    Trainer,
    load_schedule,
)
from fertool.pruning.session import PruningSession

__all__ = [
    "RECOVERY",
    "AnySession",
    "Constraints",
    "LatencyModel",
    "NoTrainer",
    "PenalizedObjective",
    "Phase",
    "ProfileSchedule",
    "ProfilesObjective",
    "ProfilesSession",
    "PrunePlan",
    "PruneResult",
    "PruningSession",
    "PruningStep",
    "RoutedObjective",
    "Schedule",
    "Targets",
    "Trainer",
    "UnreachableError",
    "cascade_profiles",
    "cascade_threshold",
    "channel_counts",
    "choose_profiles",
    "for_profiles",
    "learn_latency",
    "load_schedule",
    "measure_profile_usage",
    "plan",
    "plan_step",
    "profile_logits",
    "profile_margins",
    "prune",
    "require_float",
    "require_scorable",
    "score_channels",
    "set_cascade_threshold",
]
