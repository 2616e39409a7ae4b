"""A model with its budget, as the schedules of pruning take it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fertool.config.pruning import PruneConfig
from fertool.errors import UsageError, naming
from fertool.reporter import Reporter
from fertool.workflows.latency_budget import LatencySearch
from fertool.workflows.model import Model
from fertool.workflows.pruning_constraints import pruning_constraints

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.graph.network import Network
    from fertool.pruning import AnySession, PruningSession, Schedule
    from fertool.spec import Spec


@dataclass(frozen=True)
class SessionOpener:
    """What the sessions of a model have in common.

    `scoring` are the images that score the channels. `state` keeps the measured latencies for a run
    that resumes.
    """

    model: Model
    config: PruneConfig
    schedule: Schedule
    scoring: FaceDataset | None
    state: Path | None
    resume: bool
    reporter: Reporter

    def open(self) -> AnySession:
        """Return the network and its budget, after the removal of whole blocks.

        Of a dynamic network every profile has the budget. Raises FertoolError for a quantized
        model, UsageError for a budget that makes no sense for it.
        """
        from fertool.models import require_static
        from fertool.models.profile_network import ProfileNetwork
        from fertool.pruning import ProfilesSession, require_float

        spec = self.model.spec
        with naming(self.model.name):
            require_float(spec)
        if self.scoring is None:
            self.reporter.note(
                "no ``data``: channels are ranked by the size of their weights; images would rank "
                "them by the loss"
            )
        # The trainings change it in place.
        module = copy.deepcopy(self.model.module).cpu()
        if not isinstance(module, ProfileNetwork):
            return self._open_network(spec, require_static(module))
        self._require_profiles_possible()
        sessions = []
        for index, network in enumerate(module.networks):
            sessions.append(self._open_network(spec.of_profile(index), require_static(network)))
        return ProfilesSession(spec, module, sessions)

    def _require_profiles_possible(self) -> None:
        """Raise UsageError for what is no way to prune a dynamic network."""
        from fertool.pruning import ProfileSchedule

        if self._latency is not None:
            raise UsageError(
                f"``target_latency={self._latency}``: the time of a dynamic network depends on its "
                "images",
                "give ``target_flops``",
            )
        if not isinstance(self.schedule, ProfileSchedule):
            raise UsageError(
                f"``schedule={self.config.scheduling.schedule}`` prunes one network, and a dynamic "
                "network has several profiles",
                "use ``schedule=one-shot`` or ``schedule=iterative``",
            )

    @property
    def _latency(self) -> str | None:
        return self.config.budget.texts.get("target_latency")

    def _open_network(self, spec: Spec, network: Network) -> PruningSession:
        """Return a single network, or a profile, with the budget of the whole model."""
        from fertool.pruning import PruningSession

        constraints = pruning_constraints(self.model, network, self.config)
        self.schedule.require_budget(constraints.targets, has_latency=self._latency is not None)
        selection = self.config.selection.resolved(
            has_images=self.scoring is not None,
            image_criterion=self.schedule.criterion,
            reconstructs=self.schedule.reconstructs,
        )
        if self._latency is not None:
            search = LatencySearch(
                spec, network, constraints, selection, self.scoring, self.reporter
            )
            constraints, selection = search.run(self._latency, state=self.state, resume=self.resume)
        session = PruningSession(
            spec, network, constraints, selection, self.scoring, self.reporter.progress
        )
        session.remove_blocks(selection.prune_blocks)
        return session


def sessions_of(session: AnySession) -> tuple[PruningSession, ...]:
    """Return the sessions of all profiles, the widest first; a single network is one."""
    from fertool.pruning import PruningSession

    return (session,) if isinstance(session, PruningSession) else session.sessions
