"""Structured pruning: which channels matter, which can go together, and the smaller network without them."""

from fertool.prune.budget import Targets
from fertool.prune.oneshot import PruneOptions, PruneResult, plan, prune
from fertool.prune.planning import PrunePlan

__all__ = ["PruneOptions", "PrunePlan", "PruneResult", "Targets", "plan", "prune"]
