"""Options of the pictures that commands draw of their work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fertool.config.option import option
from fertool.config.panels import OUTPUT


@dataclass(frozen=True)
class CurvePictures:
    """The pictures of a training."""

    plot: Path | None = option(None, "Write the training curves as a PNG.", panel=OUTPUT)


@dataclass(frozen=True)
class PrunePictures(CurvePictures):
    """The pictures of a pruning."""

    plot_widths: Path | None = option(
        None, "Write a PNG of every layer's channels before and after.", panel=OUTPUT
    )


@dataclass(frozen=True)
class QuantizePictures(CurvePictures):
    """The pictures of a quantization."""

    plot_bits: Path | None = option(
        None, "Write a PNG of the bits of every layer's channels.", panel=OUTPUT
    )


@dataclass(frozen=True)
class TracePictures:
    """The pictures of Hessian traces."""

    plot: Path | None = option(
        None, "Write the traces by layer and channel as a PNG.", panel=OUTPUT
    )


@dataclass(frozen=True)
class CorruptionPictures:
    """The pictures of an evaluation."""

    plot: Path | None = option(
        None, "Write the accuracy by corruption and level as a PNG.", panel=OUTPUT
    )


def pictures_of(config: Any) -> Mapping[str, Path]:
    """Return the files of the pictures that are asked for, by the options' names."""
    asked = {}
    for field in fields(config):
        path = getattr(config, field.name)
        if path is not None:
            asked[field.name] = path
    return asked
