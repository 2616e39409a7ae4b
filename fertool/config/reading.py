"""Options of reading a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fertool.config.option import check, option
from fertool.registry import READERS

DATA = "Data"


@dataclass(frozen=True)
class ReadConfig:
    """How a data set is read; raises UsageError for a value that is none of the choices."""

    format: str = option(
        "auto", "Layout of ``data``; auto detects it.", panel=DATA, registry=READERS, advanced=True
    )
    # Barsoum et al. 2016, arXiv 1608.01041: ten votes for each image of FER2013.
    ferplus: Path | None = option(
        None,
        "FER+ votes (fer2013new.csv) that replace the labels of a fer2013.csv.",
        panel=DATA,
    )
    ferplus_rule: Literal["majority", "soft", "cross-entropy"] = option(
        "majority", "How FER+ votes become labels.", panel=DATA, advanced=True
    )

    def __post_init__(self) -> None:
        check(self)


def named_format(source: str) -> str | None:
    """Return the format that a source names itself, as `synth:COUNT` does; None for a path."""
    prefix = source.partition(":")[0]
    return READERS.having("prefix", prefix) if prefix else None
