"""The protocol of what the training loop minimizes, and the objective of supervised training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from fertool.data.augment import AugmentParams
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss


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

    def plan_epoch(self, epoch: int, targets: Tensor) -> tuple[Tensor, AugmentParams | None]:
        """Return targets [N, K'] and the changes of all N images, None where the loop draws them.

        `epoch` counts from 1 and `targets` [N, K] are the labels, on the training device. Further
        columns are mixed like the labels, by mixup and CutMix, and come back in the calls for the
        batches.
        """


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
