"""Other people's networks by name: torchvision's and timm's, where these packages are installed."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fertool.errors import UsageError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for a network: the side in pixels, mean and deviation of each channel, from 0 to 1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


_STAND_INS: list[torch.library.Library] = []
"""Kept, since operators go with the library that defined them."""


def import_torchvision() -> None:
    """Make `import torchvision` and `import timm` work where torchvision's compiled operators do not load.

    The wheel of PyPI is built against CUDA: beside the CPU build of torch its library fails to load, and importing it
    ends in "operator torchvision::nms does not exist". Operators that do nothing in their place are enough for its
    networks. Does nothing where there is no torchvision or its own operators are there. Call it before both imports.
    """
    found = find_spec("torchvision")  # Finds the folder without importing it.
    if found is None or found.origin is None or _STAND_INS:
        return
    folder = Path(found.origin).parent
    for library in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            return
        except OSError:
            pass
    names = re.findall(
        r'(?:register_meta\("|"torchvision::)(\w+)"',
        (folder / "_meta_registrations.py").read_text(),
    )
    stand_ins = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in sorted(set(names)):
        stand_ins.define(f"{name}(Tensor unused) -> Tensor")  # type: ignore[no-untyped-call]
    _STAND_INS.append(stand_ins)


def library_module(
    library: str, name: str, classes: int | None, channels: int
) -> tuple[nn.Module, Preprocessing]:
    """Return a network of torchvision or timm with random weights, and how its images are usually prepared.

    Raises UsageError where the library is not installed or has no such network.
    """
    if find_spec(library) is None:
        raise UsageError(
            f"{library}:{name}: {library} is not installed", "pip install 'fertool[zoo]'"
        )
    import_torchvision()
    try:
        return _BUILDERS[library](name, classes, channels)
    except ImportError as error:
        raise UsageError(
            f"{library} does not load ({error})", "install the version that fits this torch"
        ) from None


def _of_torchvision(
    name: str, classes: int | None, channels: int
) -> tuple[nn.Module, Preprocessing]:
    from torchvision import models

    _require_known("torchvision", name, models.list_models(module=models))
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    size = 299 if name.startswith("inception") else 224
    module: nn.Module = models.get_model(name, weights=None, **given)
    return (gray_stem(module) if channels == 1 else module), Preprocessing(
        size, IMAGENET_MEAN, IMAGENET_STD
    )


def _of_timm(name: str, classes: int | None, channels: int) -> tuple[nn.Module, Preprocessing]:
    import timm

    _require_known("timm", name.split(".")[0], timm.list_models())
    given: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    module: nn.Module = timm.create_model(name, pretrained=False, **given)
    usual = module.default_cfg
    assert isinstance(usual, dict)
    prepared = Preprocessing(usual["input_size"][1], tuple(usual["mean"]), tuple(usual["std"]))
    return (gray_stem(module) if channels == 1 else module), prepared


_BUILDERS = {"torchvision": _of_torchvision, "timm": _of_timm}


def _require_known(library: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        raise UsageError(
            f"{library} has no network '{name}'",
            f"it has {', '.join(near)}" if near else f"see {library}'s own list",
        )


def gray_stem(module: nn.Module) -> nn.Module:
    """Let the first convolution of a network for RGB read gray: its weights summed over the input channels.

    The result is that on a gray picture whose three channels are equal. The module is changed and returned; one that
    does not begin with three channels stays as it is.
    """
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and first.in_channels == 3 and first.groups == 1:
        first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
        first.in_channels = 1
    return module
