"""The interface of a schedule: in which order a network is pruned and trained.

A schedule prunes one network, step by step, and asks for trainings in between; the training itself
is the caller's. All share scores, planning and surgery with pruning in one shot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fertool.config.pruning import IMAGE_CRITERION
from fertool.errors import UsageError
from fertool.pruning.budget import Targets
from fertool.pruning.penalties import Penalty
from fertool.pruning.planning import PrunePlan
from fertool.pruning.profiles_session import ProfilesSession
from fertool.pruning.routing_objective import Routing
from fertool.pruning.session import PruningSession
from fertool.registry import SCHEDULES

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

RECOVERY = "recovery"
AnySession = PruningSession | ProfilesSession
"""A network that is pruned: a single one, or one of several profiles."""


@dataclass(frozen=True)
class Phase:
    """A training that a schedule asks for.

    `on_scoring_subset` trains on the balanced subset that also scores the channels; such a phase is
    short, and need not be resumed where a run was killed. `frozen` are parameters that stay as they
    are. `routing` trains a gate too. A phase with `keep_last_epoch` keeps its last epoch, not the
    best on validation: of a penalty it is the last that has prepared the network for pruning.
    """

    name: str
    epochs: int
    penalty: Penalty | None = None
    on_scoring_subset: bool = False
    frozen: tuple[str, ...] = ()
    routing: Routing | None = None
    keep_last_epoch: bool = False


class Trainer(Protocol):
    """What a schedule needs of its caller.

    `scoring_subset` are the images that score channels, `validation_images` those of which no
    network has learned how sure to be.
    """

    @property
    def scoring_subset(self) -> FaceDataset: ...  # noqa: D102

    @property
    def validation_images(self) -> FaceDataset: ...  # noqa: D102

    def train(self, phase: Phase, session: AnySession) -> float:
        """Train the session's network in place to its best epoch, or the last.

        Returns its accuracy on the validation images.
        """

    def measure_accuracy(self, session: PruningSession) -> float:
        """Return the accuracy of the session's network as it is on the validation images."""


class NoTrainer:
    """Stands for the trainer where there are no images: every request is a UsageError."""

    @property
    def scoring_subset(self) -> FaceDataset:
        """Raise UsageError."""
        raise _needs_images("the schedule")

    @property
    def validation_images(self) -> FaceDataset:
        """Raise UsageError."""
        raise _needs_images("the schedule")

    def train(self, phase: Phase, session: AnySession) -> float:
        """Raise UsageError."""
        raise _needs_images(f"{phase.name}: training")

    def measure_accuracy(self, session: PruningSession) -> float:
        """Raise UsageError."""
        raise _needs_images("``max_drop``")


def _needs_images(what: str) -> UsageError:
    return UsageError(f"{what} needs images", "give ``data``, for example ``data=fer2013.csv``")


@dataclass(frozen=True)
class Schedule(ABC):
    """How a network is pruned and trained.

    The fields of a member are the options that it has beyond `epochs`, those of the recovery, which
    is the training after surgery. `trains_first`: the network trains before the last channels go.
    `criterion` scores the channels unless another is asked for. `reconstructs`: the layers are
    reconstructed after each step unless told otherwise. `chooses_channels`: no criterion can be
    asked for. `shares_processes`: several processes can train together.
    """

    trains_first: ClassVar[bool] = True
    criterion: ClassVar[str] = IMAGE_CRITERION
    reconstructs: ClassVar[bool] = False
    chooses_channels: ClassVar[bool] = False
    shares_processes: ClassVar[bool] = True

    epochs: int

    def require_budget(  # noqa: B027
        self, targets: Targets | None, *, has_latency: bool = False
    ) -> None:
        """Raise UsageError for a budget that the schedule cannot work towards.

        `has_latency`: there is a budget of latency too, whose ratio is still to be measured.
        """

    def preview(self, session: PruningSession) -> list[PrunePlan]:
        """Return the plans that `run` carries out, as far as they are known before the trainings.

        The network is not changed.
        """
        plan = session.preview()
        return [plan] if plan else []

    @abstractmethod
    def run(self, session: PruningSession, trainer: Trainer) -> None:
        """Prune the session's network in place, with the trainings of the schedule.

        Raises FertoolError for targets or trainings that are not possible.
        """

    def recover(self, session: AnySession, trainer: Trainer) -> None:
        """Train for `epochs`, which a schedule does at its end."""
        if self.epochs:
            trainer.train(Phase(RECOVERY, self.epochs), session)


class ProfileSchedule(Schedule):
    """A schedule that prunes the profiles of a dynamic network, too."""

    @abstractmethod
    def run_profiles(self, session: ProfilesSession, trainer: Trainer) -> None:
        """Prune the profiles in place, with the trainings of the schedule; raises as `run` does."""


def load_schedule(name: str, epochs: int, **options: Any) -> Schedule:
    """Return the schedule of this name, with its own defaults for what is not given.

    Raises UsageError with the choices for another name.
    """
    member: type[Schedule] = SCHEDULES.load(name)
    return member(epochs, **options)
