"""What the loop minimises: the protocol, and the objective of plain training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from fertool.data.augment import AugmentParams
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss


class Objective(Protocol):
    """What a step minimises: (module, normalised inputs [N, C, S, S], target distributions [N, K]) to a scalar."""

    @property
    def fingerprint(self) -> str:
        """All that the loss depends on, as text: a killed run goes on only under the same."""

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar that has a gradient."""


@runtime_checkable
class LogitsObjective(Objective, Protocol):
    """An objective that needs the logits alone, whichever network they come from."""

    def against(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a batch as a function of the logits [N, K], for several networks on the same images."""


@runtime_checkable
class EpochPlanner(Protocol):
    """An objective that says before each epoch what the epoch trains on."""

    def plan_epoch(self, epoch: int, targets: Tensor) -> tuple[Tensor, AugmentParams | None]:
        """Return targets [N, K'] and the changes of all N images; no changes leave them to the loop's own chance.

        `epoch` counts from 1 and `targets` [N, K] are the labels, on the training device. What stands beside them is
        mixed as they are, by mixup and CutMix, and comes back in the calls for the batches.
        """


@runtime_checkable
class AdaptedObjective(Protocol):
    """An objective with layers of its own, which learn with the network and stay behind when it is handed over."""

    @property
    def adapters(self) -> nn.Module:
        """Those layers; the loop moves, trains and keeps them like the network's."""


@dataclass(frozen=True)
class Supervised:
    """The objective of plain training: the loss against the labels."""

    loss: ClassificationLoss = field(default_factory=ClassificationLoss)

    @property
    def fingerprint(self) -> str:
        """The numbers of the loss."""
        return canonical_json({"supervised": asdict(self.loss)})

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss in nats."""
        return self.against(inputs, targets)(module(inputs))

    def against(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a batch as a function of the logits."""
        return lambda logits: self.loss(logits, targets)
