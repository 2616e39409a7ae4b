"""A network as integers compute it fastest: without activations that are products of their input."""

from __future__ import annotations

import inspect
from dataclasses import replace

from torch import nn

from fertool.errors import FertoolError
from fertool.models.build import build
from fertool.models.registry import get_architecture
from fertool.spec import Spec

ARGUMENT, FRIENDLY = "activation", "relu"
"""The argument of architectures, and what it becomes: behind a convolution a ReLU is where the integers begin, and no
operator."""
_COSTLY = (nn.Hardswish, nn.SiLU)


def int8_friendly(spec: Spec, module: nn.Module) -> tuple[Spec, nn.Module] | None:
    """Return a float network with the same weights and ReLU in place of HardSwish and SiLU, which it has to learn.

    None where there is nothing to replace. Raises FertoolError where the architecture has no argument for it.
    """
    spec.require_static("made INT8-friendly")
    if not any(isinstance(part, _COSTLY) for part in module.modules()):
        return None
    if ARGUMENT not in inspect.signature(get_architecture(spec.arch)).parameters:
        raise FertoolError(
            f"{spec.arch} has HardSwish or SiLU, but no argument '{ARGUMENT}' that replaces them",
            "leave --int8-friendly out",
        )
    changed = replace(spec, arch_args={**spec.arch_args, ARGUMENT: FRIENDLY}, metrics=None)
    network = build(changed)
    network.load_state_dict(module.state_dict())
    return changed, network.eval()
