"""Structured pruning: which channels matter, which can go together, and the smaller network without them."""

from fertool.prune.budget import Targets
from fertool.prune.oneshot import CRITERIA, DATA_FREE, ROUND_TO, PruneOptions, PruneResult, plan, prune
from fertool.prune.planning import PrunePlan

__all__ = ["CRITERIA", "DATA_FREE", "ROUND_TO", "PruneOptions", "PrunePlan", "PruneResult", "Targets", "plan", "prune"]
