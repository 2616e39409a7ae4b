"""A dynamic network while its profiles are pruned step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fertool.models.profile_network import ProfileNetwork
from fertool.pruning.planning import PrunePlan
from fertool.pruning.session import PruningSession
from fertool.spec import Spec


class ProfilesSession:
    """A dynamic network on its way to a budget, of which each profile keeps the same fraction.

    So the mean cost keeps that fraction too, whichever images a profile gets. `sessions` are those
    of the profiles, in their order; what chooses among them stays as it is.
    """

    def __init__(
        self, spec: Spec, module: ProfileNetwork, sessions: Sequence[PruningSession]
    ) -> None:
        self.sessions = tuple(sessions)
        self.spec = spec
        self.module = module
        self._join()

    @property
    def plan(self) -> PrunePlan:
        """What leads from the widest profile as given to the present one."""
        return self.sessions[0].plan

    def require_reachable(self) -> None:
        """Raise FertoolError for a budget that no scores of the profiles could meet."""
        for session in self.sessions:
            session.require_reachable()

    def prune_in_steps(self, steps: int = 1) -> None:
        """Prune every profile to its targets without training, in steps of equal ratio."""
        for step in range(1, steps + 1):
            self.prune_by(step / steps)

    def prune_by(self, fraction: float) -> None:
        """Prune every profile a fraction of the whole way to its targets."""
        for session in self.sessions:
            session.prune_by(fraction)
        self._join()

    def _join(self) -> None:
        networks = [session.module for session in self.sessions]
        graphs = tuple(network.graph for network in networks)
        assert self.spec.gates is not None
        gates = replace(self.spec.gates, profiles=graphs, routing=None)
        self.spec = replace(self.spec, graph=graphs[0], gates=gates, metrics=None)
        self.module = self.module.with_networks(networks)
