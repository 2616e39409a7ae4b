"""The trainings that the schedules of pruning ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fertool.workflows.comparison import validation_logits
from fertool.workflows.rounds import for_epochs, for_round
from fertool.workflows.routing import recalibrate_cascade
from fertool.workflows.training_run import Round, TrainingRun

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.objective import LogitsObjective, Objective
    from fertool.pruning import AnySession, Phase
    from fertool.results import Epoch


class ScheduleTrainer:
    """Trains as a schedule asks, and keeps the history.

    The metrics of the last training stand in the session's spec. `scoring_subset` are the images
    that score the channels. `objective` is that of every training, before any penalty.
    """

    def __init__(
        self, run: TrainingRun, scoring_subset: FaceDataset, objective: LogitsObjective
    ) -> None:
        self.history: list[Epoch] = []
        self.scoring_subset = scoring_subset
        self._run = run
        self._objective = objective
        self._number = 0

    def train(self, phase: Phase, session: AnySession) -> float:
        """Train the session's network in place to its best epoch, or the last.

        Returns its accuracy on the validation images.
        """
        from fertool.pruning import ProfilesSession

        self._number += 1
        if isinstance(session, ProfilesSession):
            # Its margins have changed with its weights, and its epochs are compared by the profiles
            # that they choose.
            recalibrate_cascade(session.spec, session.module, self._run.val)
        run = self._run_of(phase)
        # Only while this phase trains: the next one may train them.
        frozen = [session.module.get_parameter(name) for name in phase.frozen]
        for parameter in frozen:
            parameter.requires_grad_(False)
        objective = self._objective_of(phase, session)
        session.spec, self.history = run.fit(session.spec, session.module, objective)
        for parameter in frozen:
            parameter.requires_grad_(True)
        assert session.spec.metrics is not None
        return session.spec.metrics.accuracy

    @property
    def validation_images(self) -> FaceDataset:
        """The images that the accuracies are measured on."""
        return self._run.val

    def measure_accuracy(self, session: AnySession) -> float:
        """Return the accuracy of the session's network as it is on the validation images."""
        from fertool.metrics import evaluate_logits

        val = self._run.val
        logits = validation_logits(session.module, val, session.spec.input, self._run.reporter)
        return evaluate_logits(logits, val.labels, val.classes).accuracy

    def _run_of(self, phase: Phase) -> TrainingRun:
        from fertool.pruning import RECOVERY

        run = replace(self._run, config=for_epochs(self._run.config, phase.epochs))
        if phase.on_scoring_subset:
            run = replace(run, train=self.scoring_subset)
        if phase.keep_last_epoch:
            run = replace(run, config=replace(run.config, keep="last"))
        if self._number == 1 and phase.name == RECOVERY:
            # A single training has the state, the history and the bytes of one without rounds.
            return run
        round = Round(self._number, phase.name, self.history, resumable=not phase.on_scoring_subset)
        return replace(run, run=for_round(run.run, self._number), round=round)

    def _objective_of(self, phase: Phase, session: AnySession) -> Objective:
        from fertool.pruning import PenalizedObjective, RoutedObjective

        if phase.routing:
            return RoutedObjective(self._objective, phase.routing, phase.epochs)
        if phase.penalty:
            return PenalizedObjective(self._objective, phase.penalty, phase.epochs)
        return self._objective
