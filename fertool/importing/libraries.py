"""Networks of torchvision and timm by name, where these packages are installed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fertool.errors import UsageError
from fertool.importing.factories import parse_argument
from fertool.importing.sources import Preprocessing

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIBRARIES = ("torchvision", "timm")

_OPERATOR_NAMES = re.compile(r'(?:register_meta\("|"torchvision::)(\w+)"')
_STUB_LIBRARIES: list[torch.library.Library] = []
"""Kept, since operators disappear with the library object that defined them."""


def prepare_torchvision_import() -> None:
    """Make `import torchvision` and `import timm` work without torchvision's compiled operators.

    The wheel of PyPI is built against CUDA: beside the CPU build of torch its library does not
    load, and the import ends in "operator torchvision::nms does not exist". Operators that do
    nothing are enough for the networks. Without torchvision, or with its own operators, this does
    nothing. Call it before both imports.
    """
    spec = find_spec("torchvision")  # Finds the folder without importing it.
    if spec is None or spec.origin is None or _STUB_LIBRARIES:
        return
    folder = Path(spec.origin).parent
    if not _load_compiled_operators(folder):
        _define_stub_operators(folder)


def _load_compiled_operators(folder: Path) -> bool:
    for library in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return True
    return False


def _define_stub_operators(folder: Path) -> None:
    # The names are read from torchvision's own registrations, as they differ between versions.
    source = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
    stubs = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in sorted(set(_OPERATOR_NAMES.findall(source))):
        stubs.define(f"{name}(Tensor unused) -> Tensor")  # type: ignore[no-untyped-call]
    _STUB_LIBRARIES.append(stubs)


def build_library_network(
    library: str,
    name: str,
    classes: int | None,
    channels: int,
    arch_args: Mapping[str, Any],
) -> tuple[nn.Module, Preprocessing]:
    """Return a network with random weights and the preprocessing that it was published with.

    `arch_args` go to the library's own function. Raises UsageError where the library is not
    installed, has no such network, or refuses the arguments.
    """
    if find_spec(library) is None:
        raise UsageError(
            f"{library}:{name}: {library} is not installed", "pip install 'fertool[zoo]'"
        )
    prepare_torchvision_import()
    # Without a number of classes the library's own default stays, that of ImageNet.
    arguments: dict[str, Any] = {}
    if classes is not None:
        arguments["num_classes"] = classes
    for key, value in arch_args.items():
        arguments[key] = parse_argument(value)
    try:
        module, preprocessing = _BUILDERS[library](name, arguments)
    except TypeError as error:
        raise UsageError(f"{library}:{name}: {error}", "correct ``arch_arg``") from None
    except ImportError as error:
        raise UsageError(
            f"{library} does not load ({error})", "install the version that fits this torch"
        ) from None
    if channels == 1:
        convert_stem_to_gray_(module)
    return module, preprocessing


def _build_torchvision(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, Preprocessing]:
    from torchvision import models

    _require_known("torchvision", name, models.list_models(module=models))
    module: nn.Module = models.get_model(name, weights=None, **arguments)
    # Szegedy et al. 2015 (1512.00567) trained Inception on 299 pixels; the others have 224.
    size = 299 if name.startswith("inception") else 224
    return module, Preprocessing(size, IMAGENET_MEAN, IMAGENET_STD)


def _build_timm(name: str, arguments: dict[str, Any]) -> tuple[nn.Module, Preprocessing]:
    import timm

    # Behind the dot is the tag of pretrained weights, which the list of networks has not.
    _require_known("timm", name.split(".")[0], timm.list_models())
    module: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    config = module.default_cfg
    assert isinstance(config, dict)
    size = config["input_size"][1]
    return module, Preprocessing(size, tuple(config["mean"]), tuple(config["std"]))


_BUILDERS = {"torchvision": _build_torchvision, "timm": _build_timm}


def _require_known(library: str, name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    # The nearest alone: timm has more than a thousand.
    near = difflib.get_close_matches(name, known, n=5)
    hint = f"see {library}'s own list"
    if near:
        hint = f"it has {', '.join(near)}"
    raise UsageError(f"{library} has no network '{name}'", hint)


def convert_stem_to_gray_(module: nn.Module) -> nn.Module:
    """Let the first convolution of an RGB network take gray images: its weights are summed.

    The sum over the input channels gives the result for a picture whose three channels are equal.
    The module is changed and returned; one without an RGB stem stays as it is.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            if part.in_channels == 3 and part.groups == 1:
                part.weight = nn.Parameter(part.weight.detach().sum(1, keepdim=True))
                part.in_channels = 1
            # Only the first one reads images.
            break
    return module
