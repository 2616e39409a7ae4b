"""The schedules of `fertool prune`: their options, and the trainings that they ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.rounds import round_seed
from fertool.cli.training import History, Round, TrainingRun
from fertool.cli.variants import Own, own_options, require_own
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.prune import Phase, Shrinking
    from fertool.spec import Metrics
    from fertool.train import Objective

SCHEDULE = "Schedule"
_OWN: Own = {
    "one-shot": {},
    "iterative": {"steps": 4, "step_epochs": 1},
    "slimming": {"sparse_epochs": 5, "sparsity": 1e-4},
    "greg": {"sparse_epochs": 5, "sparsity": 1.0},
    "prj": {
        "punish_epochs": 10,
        "punish_share": 0.002,
        "reward_epochs": 2,
        "sparsity": 1e-4,
        "max_drop": 1.0,
    },
}
"""The options that some schedules alone have, and what they are where they are left out."""


@dataclass(frozen=True)
class ScheduleChoice:
    """In which order channels go and the network trains; raises UsageError for an option that the schedule lacks."""

    schedule: Annotated[
        Literal["one-shot", "iterative", "slimming", "greg", "prj"],
        typer.Option(
            help="one-shot: score, remove, fine-tune; iterative: in steps, training in between; slimming: sparse BN "
            "scales first, the smallest go; greg: a growing penalty shrinks what will go; prj: punish, reward, judge.",
            rich_help_panel=SCHEDULE,
        ),
    ] = "one-shot"
    steps: Annotated[
        int | None,
        typer.Option(help="iterative: prunings on the way, 4 if left out.", min=1, rich_help_panel=SCHEDULE),
    ] = None
    step_epochs: Annotated[
        int | None,
        typer.Option(help="iterative: epochs after each step, 1 if left out.", min=0, rich_help_panel=SCHEDULE),
    ] = None
    sparse_epochs: Annotated[
        int | None,
        typer.Option(help="slimming, greg: epochs under the penalty, 5 if left out.", min=1, rich_help_panel=SCHEDULE),
    ] = None
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Strength of the penalty: L1 of BN scales in slimming and prj, 1e-4 if left out; greg: what L2 grows "
            "to, 1 if left out.",
            min=0,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    punish_epochs: Annotated[
        int | None,
        typer.Option(
            help="prj: prunings in a cycle, each with an epoch on the scoring images, 10 if left out.",
            min=1,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    punish_share: Annotated[
        float | None,
        typer.Option(
            help="prj: share of the channels that each removes, 0.002 if left out.",
            min=1e-6,
            max=0.5,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    reward_epochs: Annotated[
        int | None,
        typer.Option(help="prj: epochs on all images in a cycle, 2 if left out.", min=1, rich_help_panel=SCHEDULE),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="prj: points of validation accuracy that may be lost before recovery, 1 if left out; the cycle that "
            "loses more is taken back. A budget of its own where there is no --target.",
            min=0,
            max=100,
            rich_help_panel=SCHEDULE,
        ),
    ] = None

    def __post_init__(self) -> None:
        require_own(self, "schedule", _OWN)

    @property
    def own(self) -> dict[str, Any]:
        """The options that the schedule has, the defaults for those left out."""
        return own_options(self, "schedule", _OWN)

    @property
    def trains_first(self) -> bool:
        """Whether the network trains before the last channels go."""
        return self.schedule != "one-shot"

    @property
    def repairs(self) -> bool:
        """Whether layers are repaired after a cut unless told otherwise; the published schedules know no such step."""
        return self.schedule in ("one-shot", "iterative")

    def carry_out(self, net: Shrinking, trainings: Trainings | None, epochs: int) -> None:
        """Shrink the network by the schedule; without trainings only in one shot."""
        from fertool.prune import SCHEDULES, ScheduleOptions, prj

        own = {**self.own, **({"max_drop": self.own["max_drop"] / 100} if "max_drop" in self.own else {})}
        options = ScheduleOptions(epochs, **own)
        train = trainings or _no_training
        if self.schedule == "prj":
            if trainings is None:
                raise UsageError("--schedule prj needs --data", "for example --data fer2013.csv")
            prj(net, options, train, trainings.judge)
        else:
            SCHEDULES[self.schedule](net, options, train)


def _no_training(phase: Phase, net: Shrinking) -> float:
    raise UsageError(f"{phase.name}: training needs --data", "for example --data fer2013.csv")


class Trainings:
    """Runs what a schedule asks for, and keeps the history; the last training's measures stand in the network's spec.

    `few` are the images that score the channels. `objective` is that of every training, before any penalty.
    """

    def __init__(self, run: TrainingRun, few: FaceDataset, objective: Objective) -> None:
        self.history: History = []
        self._run, self._few, self._objective, self._number = run, few, objective, 0

    def __call__(self, phase: Phase, net: Shrinking) -> float:
        """Train the network in place to its best epoch; returns its accuracy on the validation images."""
        from fertool.prune import RECOVERY, Penalised

        self._number += 1
        run = replace(
            self._run,
            train=self._few if phase.few else self._run.train,
            options=replace(self._run.options, epochs=phase.epochs, warmup_epochs=self._warmup(phase)),
        )
        # A single training is that of a command without rounds: its state, history and bytes.
        if self._number > 1 or phase.name != RECOVERY:
            round = Round(self._number, phase.name, self.history, lasts=not phase.few)
            run = replace(run, seed=round_seed(run.seed, self._number), round=round)
        objective = self._objective
        if phase.penalty:
            objective = Penalised(objective, phase.penalty, phase.epochs)
        frozen = [net.module.get_parameter(name).requires_grad_(False) for name in phase.frozen]
        net.spec, self.history = run.fit(net.spec, net.module, objective)
        for parameter in frozen:
            parameter.requires_grad_(True)
        if net.spec.metrics is None:
            raise AssertionError("training measures")
        return net.spec.metrics.accuracy

    def judge(self, net: Shrinking) -> float:
        """Return the accuracy of the network as it is on the validation images."""
        return measure(net, self._run.val).accuracy

    def _warmup(self, phase: Phase) -> float:
        return min(self._run.options.warmup_epochs, phase.epochs / 2)


def measure(net: Shrinking, val: FaceDataset) -> Metrics:
    """Return how a network does on the validation images."""
    from fertool.metrics import evaluate_logits, to_metrics
    from fertool.train import predict_logits

    logits = predict_logits(net.module, val, net.spec.input)
    return to_metrics(evaluate_logits(logits, val.labels, val.classes), val.split)
