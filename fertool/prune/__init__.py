"""Structured pruning: which channels matter, which can go together, and the smaller network without them."""

from fertool.prune.budget import Targets
from fertool.prune.oneshot import PruneOptions, PruneResult, plan, prune
from fertool.prune.penalties import Penalised
from fertool.prune.planning import PrunePlan
from fertool.prune.schedules import RECOVERY, SCHEDULES, Phase, ScheduleOptions, Shrinking, prj

__all__ = [
    "RECOVERY",
    "SCHEDULES",
    "Penalised",
    "Phase",
    "PruneOptions",
    "PrunePlan",
    "PruneResult",
    "ScheduleOptions",
    "Shrinking",
    "Targets",
    "plan",
    "prj",
    "prune",
]
