"""Options of the network that a training starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.config.image_options import LARGEST_SIDE, require_gray_or_color
from fertool.config.option import changed, check, option

MODEL = "Model"


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained; raises UsageError for a value out of bounds."""

    arch: str = option("resnet18", "A name of the zoo; a wrong one lists them all.", panel=MODEL)
    arch_args: Mapping[str, Any] = option(
        field(default_factory=dict),
        "Argument of the architecture; repeatable.",
        panel=MODEL,
        flag="arch-arg",
    )
    # The side of the images of FER2013.
    input_size: int = option(
        48, "Side of the input, pixels.", panel=MODEL, minimum=16, maximum=LARGEST_SIDE
    )
    input_channels: int = option(
        1, "1 for grayscale, 3 for color.", panel=MODEL, minimum=1, maximum=3
    )
    init: Path | None = option(
        None,
        "Start from these weights: a state dict (.pth) of the reference implementation, or a .pt "
        "file.",
        panel=MODEL,
    )
    init_from: Path | None = option(
        None,
        "Train the network of this float model file, imported or pruned, from its weights, in "
        "place of ``arch``; a classifier for other classes starts afresh.",
        panel=MODEL,
        aliases=("student",),
        flag_aliases=("student",),
    )

    # None and not False, so that the provenance of models without it is what it was.
    measure_landmarks: bool | None = option(
        None,
        "Store in the header where the training images have the landmarks of faces, for predict to cut "
        "faces like them.",
        panel=MODEL,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)
        require_gray_or_color(self.input_channels)

    @property
    def files(self) -> list[Path]:
        """The files that the network starts from."""
        return [path for path in (self.init, self.init_from) if path is not None]

    @property
    def name(self) -> str:
        """The name of the network's file where none is given."""
        return self.init_from.stem if self.init_from else self.arch


@dataclass(frozen=True)
class StudentConfig(NetworkConfig):
    """The same for a student: by default recipe 1's."""

    arch: str = changed(NetworkConfig, "arch", "micro_expnet")
