"""Head-first training: for the first epochs all but the classifier's head keeps what it has learnt elsewhere."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fertool.errors import UsageError
from fertool.models.initial import head_name


class HeadFirst:
    """Freezes a module's trainable parameters outside of its head, and lets them go."""

    def __init__(self, module: nn.Module, epochs: int) -> None:
        """Plan for the first `epochs` epochs; raises UsageError when there are some and the module has no head."""
        self._epochs = epochs
        head = head_name(module)
        if epochs and head is None:
            raise UsageError(
                f"--freeze-epochs {epochs}: this network has no linear layer to train first",
                "leave it out",
            )
        within = set(module.get_submodule(head).modules()) if head is not None else set()
        body = [part for part in module.modules() if part not in within]
        self._body = [p for part in body for p in part.parameters(recurse=False) if p.requires_grad]
        self._norms = [part for part in body if isinstance(part, _BatchNorm)]

    def start_epoch(self, epoch: int) -> None:
        """Freeze or free the body, in training mode, for an epoch counted from 1."""
        frozen = epoch <= self._epochs
        for p in self._body:
            p.requires_grad_(not frozen)
        if frozen:
            for norm in self._norms:
                norm.eval()

    def release(self) -> None:
        """Leave every parameter as trainable as it came."""
        for p in self._body:
            p.requires_grad_(True)
