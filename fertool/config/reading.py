"""Options of reading a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fertool.config.option import check, option

DATA = "Data"


@dataclass(frozen=True)
class ReadConfig:
    """How a data set is read; raises UsageError for a value that is none of the choices."""

    format: Literal["auto", "fer2013", "folders", "raf-db", "affectnet", "synth"] = option(
        "auto", "Layout of ``data``; auto detects it.", panel=DATA
    )
    ferplus: Path | None = option(
        None,
        "FER+ votes (fer2013new.csv) that replace the labels of a fer2013.csv.",
        panel=DATA,
    )
    ferplus_rule: Literal["majority", "soft", "cross-entropy"] = option(
        "majority", "How FER+ votes become labels.", panel=DATA
    )

    def __post_init__(self) -> None:
        check(self)
