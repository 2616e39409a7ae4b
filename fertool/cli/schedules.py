"""The schedules of `fertool prune`: their options, and the trainings that they ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.change import measured_metrics
from fertool.cli.rounds import for_epochs, round_seed
from fertool.cli.training import History, Round, TrainingRun
from fertool.cli.variants import Own, own_options, require_own
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.prune import Phase, PrunePlan, PruningSession, Schedule, Targets
    from fertool.spec import Spec
    from fertool.train.objective import LogitsObjective, Objective

SCHEDULE = "Schedule"
_OWN: Own = {
    "one-shot": {"max_drop": None, "steps": 1},
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
    "dynamic": {"profiles": "", "sparsity": 10.0},
}
"""The options that some schedules alone have, and what they are where they are left out."""


@dataclass(frozen=True)
class ScheduleChoice:
    """In which order channels go and the network trains; raises UsageError for an option that the schedule lacks."""

    schedule: Annotated[
        Literal["one-shot", "iterative", "slimming", "greg", "prj", "dynamic"],
        typer.Option(
            help="one-shot: score and remove, then fine-tune; iterative: training between cuts; slimming: sparse BN "
            "scales first, the smallest go; greg: a growing penalty shrinks what will go; prj: punish, reward, judge; "
            "dynamic: several widths, one of which a small gate chooses for each image; --target-flops is their mean.",
            rich_help_panel=SCHEDULE,
        ),
    ] = "one-shot"
    steps: Annotated[
        int | None,
        typer.Option(
            help="one-shot, iterative: cuts on the way to the budget, each scored (and repaired) anew; 1 and 4 if left "
            "out.",
            min=1,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    step_epochs: Annotated[
        int | None,
        typer.Option(
            help="iterative: epochs after each step, 1 if left out.",
            min=0,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    sparse_epochs: Annotated[
        int | None,
        typer.Option(
            help="slimming, greg: epochs under the penalty, 5 if left out.",
            min=1,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Strength of the penalty: L1 of BN scales in slimming and prj, 1e-4 if left out; greg: what L2 grows "
            "to, 1 if left out; dynamic: of the squared distance to the budget, 10 if left out.",
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
        typer.Option(
            help="prj: epochs on all images in a cycle, 2 if left out.",
            min=1,
            rich_help_panel=SCHEDULE,
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="one-shot, prj: points of validation accuracy that may be lost before recovery, the budget if "
            "there is no other; prj takes the cycle back that loses more, 1 if left out.",
            min=0,
            max=100,
            rich_help_panel=SCHEDULE,
        ),
    ] = None

    profiles: Annotated[
        str | None,
        typer.Option(
            help="dynamic: MACs of the widths to choose from, as ratios; 1.6 (0.9 at most), 1 and 0.5 times "
            "--target-flops if left out.",
            metavar="R,R,…",
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
    def criterion(self) -> Literal["taylor", "kl"]:
        """What scores channels by images unless told otherwise: what measured best; in PRJ what its source has."""
        return "taylor" if self.schedule == "prj" else "kl"

    @property
    def repairs(self) -> bool:
        """Whether layers are repaired after a cut unless told otherwise; the published schedules know no such step."""
        return self.schedule in ("one-shot", "iterative", "dynamic")

    def preview(self, net: PruningSession) -> list[PrunePlan]:
        """Return the plan that is carried out, in dynamic pruning one for each width; nothing where a judge decides."""
        return self._made(epochs=0).preview(net)

    def carry_out(self, net: PruningSession, trainings: Trainings | None, epochs: int) -> None:
        """Shrink the network by the schedule; without trainings only in one shot."""
        from fertool.prune import NoTrainer
        from fertool.report.console import note

        schedule = self._made(epochs)
        schedule.run(net, trainings or NoTrainer())
        rest = net.remaining_budget()
        if rest and self.own.get("max_drop") is not None:
            ratios = " and ".join(f"{ratio:.2f}" for ratio in rest.ratios if ratio is not None)
            note(f"--max-drop ended it before the budget, which asks for {ratios} of what is left")

    def require_budget(self, targets: Targets | None) -> None:
        """Raise UsageError for targets that the schedule cannot work towards."""
        self._made(epochs=0).require_budget(targets)

    def _made(self, epochs: int) -> Schedule:
        from fertool.prune import load_schedule

        own = {name: value for name, value in self.own.items() if value is not None}
        if "profiles" in own:
            own["profiles"] = _ratios(own["profiles"])
        return load_schedule(self.schedule, epochs, **own)


def _ratios(text: str) -> tuple[float, ...]:
    """Read --profiles; raises UsageError unless it is a list of ratios."""
    try:
        ratios = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        ratios = (0.0,)
    if (
        not all(0 < ratio <= 1 for ratio in ratios)
        or len(set(ratios)) != len(ratios)
        or len(ratios) == 1
    ):
        raise UsageError(
            f"--profiles {text}: not two or more different ratios up to 1",
            "for example 0.7,0.4,0.2",
        )
    return ratios


class Trainings:
    """Runs what a schedule asks for, and keeps the history; the last training's measures stand in the network's spec.

    `scoring_subset` are the images that score the channels. `objective` is that of every training, before any penalty.
    """

    def __init__(
        self, run: TrainingRun, scoring_subset: FaceDataset, objective: LogitsObjective
    ) -> None:
        self.history: History = []
        self.scoring_subset = scoring_subset
        self._run, self._objective, self._number = run, objective, 0

    def train(self, phase: Phase, net: PruningSession) -> float:
        """Train the network in place to its best epoch, or the last; returns its accuracy on the validation images."""
        from fertool.prune import RECOVERY, PenalizedObjective, RoutedObjective

        self._number += 1
        run = replace(
            self._run,
            train=self.scoring_subset if phase.on_scoring_subset else self._run.train,
            options=for_epochs(self._run.options, phase.epochs),
            keep="last" if phase.keep_last_epoch else "best",
        )
        # A single training is that of a command without rounds: its state, history and bytes.
        if self._number > 1 or phase.name != RECOVERY:
            round = Round(self._number, phase.name, self.history, lasts=not phase.on_scoring_subset)
            run = replace(run, seed=round_seed(run.seed, self._number), round=round)
        objective: Objective = self._objective
        if phase.penalty:
            objective = PenalizedObjective(objective, phase.penalty, phase.epochs)
        if phase.routing:
            objective = RoutedObjective(self._objective, phase.routing, phase.epochs)
        frozen = [net.module.get_parameter(name).requires_grad_(False) for name in phase.frozen]
        net.spec, self.history = run.fit(net.spec, net.module, objective)
        for parameter in frozen:
            parameter.requires_grad_(True)
        if net.spec.metrics is None:
            raise AssertionError("training measures")
        return net.spec.metrics.accuracy

    def judge(self, net: PruningSession) -> float:
        """Return the accuracy of the network as it is on the validation images."""
        return measured_metrics(net.module, self._run.val, net.spec.input).accuracy


def measured(net: PruningSession, val: FaceDataset) -> Spec:
    """Return the network's spec with how it does on the validation images."""
    from fertool.models.dynamic_network import DynamicNetwork
    from fertool.prune import measure_profile_usage

    spec = replace(net.spec, metrics=measured_metrics(net.module, val, net.spec.input))
    if spec.gates and isinstance(net.module, DynamicNetwork):
        net.module.shares = measure_profile_usage(net.module, val, spec.input)
        spec = replace(spec, gates=replace(spec.gates, shares=net.module.shares))
    return spec
