"""Spec to module and back: the only place where a model file becomes a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.artifact import store
from fertool.errors import FertoolError, UsageError
from fertool.models.dynamic import DynamicNetwork, ImageGate
from fertool.models.registry import check_arch_args, get_architecture, resolve_arch_args
from fertool.spec import InputSpec, Spec

_LISTED = 20
"""Tensors that an error lists."""


def create(
    arch: str, arch_args: Mapping[str, Any], input: InputSpec, classes: tuple[str, ...]
) -> tuple[Spec, nn.Module]:
    """Return a new, randomly initialised network and its spec."""
    resolved = resolve_arch_args(arch, arch_args, input.size)
    module = get_architecture(arch)(num_classes=len(classes), in_channels=input.channels, **resolved)
    return Spec(arch=arch, arch_args=resolved, widths={}, input=input, classes=classes), module


def build(spec: Spec, widths: Mapping[str, int] | None = None) -> nn.Module:
    """Return the float network of a spec with fresh weights, at the spec's widths or at others.

    Where the spec has gates that is all profiles and the gate, unless there are `widths`. Raises UsageError for an
    unknown architecture and FertoolError for arguments or widths that do not fit it.
    """
    if spec.gates is not None and widths is None:
        gate = ImageGate(len(spec.gates.profiles), spec.gates.hidden)
        return DynamicNetwork(gate, [build(spec, profile) for profile in spec.gates.profiles], spec.gates.shares)
    architecture = get_architecture(spec.arch)
    chosen = spec.widths if widths is None else widths
    try:
        check_arch_args(spec.arch, spec.arch_args)
        return architecture(chosen, num_classes=len(spec.classes), in_channels=spec.input.channels, **spec.arch_args)
    # The arguments are of no known types, and torch has errors of its own for what it cannot lay out.
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise FertoolError(
            f"the header does not fit the architecture {spec.arch}: {reason}", "make the file again with this version"
        ) from None


def load_model(path: Path) -> tuple[Spec, nn.Module]:
    """Open any fertool `.pt` file, float or quantised, as a module in eval mode; nothing in it is executed.

    Raises FertoolError when the file is not one, or listing every tensor that does not fit the spec.
    """
    artifact = store.load(path)
    try:
        # On the meta device a network costs no memory and no random initialisation.
        with torch.device("meta"):
            module = build(artifact.spec)
    except UsageError as error:
        hint = "install the package that provides it, or make the file again"
        raise FertoolError(f"{path}: {error.message}", hint) from None
    except FertoolError as error:
        raise FertoolError(f"{path}: {error.message}", error.hint) from None
    quant = artifact.spec.quant
    if quant is None:
        _require_fit(artifact.state_dict, module.state_dict(), path)
        module.load_state_dict(artifact.state_dict, assign=True)
        return artifact.spec, module.eval()
    from fertool.models.quantized import loaded_form, quantized_module, stored_form

    try:
        module = quantized_module(module, artifact.spec)
    except FertoolError as error:
        raise FertoolError(f"{path}: {error.message}", error.hint) from None
    wanted = module.state_dict()
    _require_fit(artifact.state_dict, stored_form(quant, wanted), path)
    module.load_state_dict(loaded_form(quant, artifact.state_dict, wanted), assign=True)
    return artifact.spec, module.eval()


def save_model(path: Path, spec: Spec, module: nn.Module) -> Spec:
    """Write a module with its spec, parameters and MACs counted afresh; returns the spec with its digest."""
    counted = cost.count(module, spec.input)
    spec = replace(spec, params=counted.params, macs=counted.macs)
    return store.save(path, spec, tensors_of(spec, module))


def tensors_of(spec: Spec, module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a model file holds; of fewer than 8 bits packed."""
    if spec.quant is None:
        return module.state_dict()
    from fertool.models.quantized import stored_form

    return stored_form(spec.quant, module.state_dict())


def stored_size(spec: Spec) -> int:
    """Return the bytes of a quantised model's file, which its spec alone decides."""
    from fertool.models.quantized import quantized_module

    with torch.device("meta"):
        module = quantized_module(build(replace(spec, quant=None)), spec)
    forms = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors_of(spec, module).items()}
    zeros = {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in forms.items()}
    return len(store.pack(json.loads(spec.to_json()), zeros)[1])


def _require_fit(state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"{name} is missing" for name in wanted if name not in state_dict]
    problems += [f"{name} is unknown" for name in state_dict if name not in wanted]
    problems += [
        f"{name} is {_form(tensor)}, the spec says {_form(wanted[name])}"
        for name, tensor in state_dict.items()
        if name in wanted and _form(tensor) != _form(wanted[name])
    ]
    if problems:
        said = "; ".join(problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise FertoolError(f"{path}: the tensors do not fit the spec: {said}{more}", "make the file again")


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
