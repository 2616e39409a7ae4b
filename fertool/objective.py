"""What the training loop minimizes: the protocols of objectives, and the supervised one.

Techniques add objectives of their own: distillation, penalties for pruning, gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from fertool.data.augment import AugmentParams
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss

EpochPlan = tuple[Tensor, AugmentParams | None]
"""Targets [N, K'] and the augmentation of all N images, None where the loop draws it."""


class Objective(Protocol):
    """The loss of a step as a function of module, inputs and targets.

    Inputs are normalized [N, C, S, S], targets distributions [N, K]; the loss is a scalar.
    """

    @property
    def fingerprint(self) -> str:
        """All that the loss depends on, as text: a killed run resumes only under the same."""

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar that has a gradient."""


@runtime_checkable
class LogitsObjective(Objective, Protocol):
    """An objective that needs the logits alone, whichever network they come from."""

    def loss_on_logits(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a batch as a function of the logits [N, K].

        Several networks on the same images can share the function.
        """


@runtime_checkable
class EpochPlanner(Protocol):
    """An objective that chooses targets and augmentation before each epoch."""

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Return the plan of an epoch, which counts from 1; `targets` [N, K] are the labels.

        They are on the training device. Further columns of the plan's targets are mixed like the
        labels, by mixup and CutMix, and come back in the calls for the batches.
        """


def plan_epoch(objective: object, epoch: int, targets: Tensor) -> EpochPlan:
    """Return the plan of an objective for an epoch; without one, the labels as they are."""
    if isinstance(objective, EpochPlanner):
        return objective.plan_epoch(epoch, targets)
    return targets, None


@runtime_checkable
class AdaptedObjective(Protocol):
    """An objective with layers of its own, which are trained with the network and then dropped."""

    @property
    def adapters(self) -> nn.Module:
        """Those layers; the loop moves, trains and saves them like the network's."""


@dataclass(frozen=True)
class Supervised:
    """The objective of supervised training: the loss on the labels."""

    loss: ClassificationLoss = field(default_factory=ClassificationLoss)

    @property
    def fingerprint(self) -> str:
        """The parameters of the loss."""
        return canonical_json({"supervised": asdict(self.loss)})

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss in nats."""
        return self.loss_on_logits(inputs, targets)(module(inputs))

    def loss_on_logits(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a batch as a function of the logits."""
        return lambda logits: self.loss(logits, targets)
