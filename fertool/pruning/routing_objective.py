"""The training objective of a gate that chooses one of a dynamic network's profiles by image."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.errors import FertoolError
from fertool.header_json import canonical_json
from fertool.models.dynamic_network import DynamicNetwork
from fertool.models.profile_network import ProfileNetwork
from fertool.objective import EpochPlan, LogitsObjective, Objective, plan_epoch


@dataclass(frozen=True)
class Routing:
    """How a gate learns.

    `costs` are the MACs of an image by profile, relative to the unpruned network's. A regularizer
    of this `strength` pulls the mean cost to a target, which falls from `start` to `end` in the
    course of the training: recipe 4's progressive threshold.
    """

    costs: tuple[float, ...]
    strength: float
    start: float
    end: float


class RoutedObjective:
    """`mean_k L(z_k) + L(z) + strength (mean cost - target)^2` of a DynamicNetwork.

    L is an objective of the logits. z_k are the logits of profile k, so that each profile learns
    from every image. z are those of the profile that the gate chose; its gradient goes to the gate
    as though the gate's softmax had mixed them (straight-through, Bengio et al. 2013, arXiv
    1308.3432).
    """

    def __init__(self, objective: LogitsObjective, routing: Routing, epochs: int) -> None:
        self._objective = objective
        self._routing = routing
        self._epochs = epochs
        # From 0 in the first epoch to 1 in the last.
        self._progress = 0.0

    @property
    def fingerprint(self) -> str:
        """That of the objective, and the routing's numbers."""
        routing = canonical_json(asdict(self._routing))
        return f"{self._objective.fingerprint} {routing} {self._epochs}"

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Start an epoch, counted from 1, with what the objective plans for it."""
        self._progress = (epoch - 1) / max(1, self._epochs - 1)
        return plan_epoch(self._objective, epoch, targets)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch for a DynamicNetwork."""
        if not isinstance(module, DynamicNetwork):
            raise AssertionError("only a dynamic network has a gate")
        loss = self._objective.loss_on_logits(inputs, targets)
        logits = torch.stack([network(inputs) for network in module.networks], 1)
        soft = module.gate(inputs).softmax(1)
        hard = F.one_hot(soft.argmax(1), soft.shape[1])
        # Detached: the profiles learn from their own losses, the gate from that of its choice.
        chosen = (hard + soft - soft.detach())[:, :, None] * logits.detach()
        profile_losses = torch.stack([loss(profile) for profile in logits.unbind(1)])

        routing = self._routing
        costs = torch.tensor(routing.costs, device=soft.device)
        target = routing.start + self._progress * (routing.end - routing.start)
        budget = ((soft @ costs).mean() - target).square()
        gate_loss = loss(chosen.sum(1))
        total: Tensor = profile_losses.mean() + gate_loss + routing.strength * budget
        return total


class ProfilesObjective:
    """`mean_k L(z_k)` of a ProfileNetwork: each profile learns from every image, and no gate.

    L is an objective of the logits, z_k are the logits of profile k.
    """

    def __init__(self, objective: LogitsObjective) -> None:
        self._objective = objective

    @property
    def fingerprint(self) -> str:
        """That of the objective, for each profile."""
        return f"{self._objective.fingerprint} by profile"

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Start an epoch, counted from 1, with what the objective plans for it."""
        return plan_epoch(self._objective, epoch, targets)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch for a ProfileNetwork."""
        if not isinstance(module, ProfileNetwork):
            raise AssertionError("only a dynamic network has profiles")
        loss = self._objective.loss_on_logits(inputs, targets)
        losses = torch.stack([loss(network(inputs)) for network in module.networks])
        return losses.mean()


def for_profiles(objective: Objective, module: nn.Module) -> Objective:
    """Return the objective for the profiles of a dynamic network; another one's is as it is.

    So is one that is for profiles already. Raises FertoolError for an objective that needs more of
    the network than its logits.
    """
    is_for_profiles = isinstance(objective, ProfilesObjective | RoutedObjective)
    if is_for_profiles or not isinstance(module, ProfileNetwork):
        return objective
    if not isinstance(objective, LogitsObjective):
        raise FertoolError(
            f"a dynamic network of {len(module.networks)} profiles learns by its logits alone",
            "use ``method=kd``",
        )
    return ProfilesObjective(objective)
