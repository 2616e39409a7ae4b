"""Head-first training: for the first epochs everything but the classifier's head is frozen."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fertool.errors import UsageError
from fertool.models.initial_weights import head_name
from fertool.models.profile_network import ProfileNetwork


class BackboneFreezer:
    """Freezes a module's trainable parameters outside of its head, and unfreezes them later."""

    def __init__(self, module: nn.Module, epochs: int) -> None:
        """Freeze in the first `epochs` epochs; raises UsageError when the module has no head."""
        self._epochs = epochs
        head_modules: set[nn.Module] = set()
        # Of a dynamic network each profile has one.
        for network in module.networks if isinstance(module, ProfileNetwork) else (module,):
            head = head_name(network)
            if head is not None:
                head_modules.update(network.get_submodule(head).modules())
        if epochs and not head_modules:
            raise UsageError(
                f"``freeze_epochs={epochs}``: this network has no linear layer to train first",
                "leave it out",
            )

        self._parameters: list[nn.Parameter] = []
        self._norms: list[nn.Module] = []
        for part in module.modules():
            if part in head_modules:
                continue
            # Parameters that came frozen stay so: they are not listed, and never unfrozen.
            self._parameters += [p for p in part.parameters(recurse=False) if p.requires_grad]
            if isinstance(part, _BatchNorm):
                self._norms.append(part)

    def start_epoch(self, epoch: int) -> None:
        """Freeze or unfreeze the backbone, in training mode, for an epoch counted from 1."""
        frozen = epoch <= self._epochs
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)
        if frozen:
            # Running statistics would follow the new data even without a gradient.
            for norm in self._norms:
                norm.eval()

    def release(self) -> None:
        """Leave every parameter as trainable as it came."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)
