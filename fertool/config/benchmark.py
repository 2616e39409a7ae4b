"""Options of measuring what model files cost."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.config.foreign_files import ForeignModel
from fertool.config.option import check, option
from fertool.config.panels import LIMIT
from fertool.errors import UsageError
from fertool.registry import RUNTIMES

DEFAULT_MAX_REGRESSION = 0.05


@dataclass(frozen=True)
class BenchConfig:
    """How to measure; raises UsageError for a value out of bounds.

    Every file is measured with each of the batch sizes, in each runtime that can open it. `memory`
    is measured in a process for each file. `foreign` describes ONNX files without fertool's header.
    """

    runtime: tuple[str, ...] = option(
        (),
        f"Measure in this runtime: {', '.join(RUNTIMES.names())}. Give it several times for a row "
        "in each that opens the file. Default: that of the file's format.",
        metavar="NAME",
    )
    # Threads, batch, warm-up and runs are those of recipe 1's measurement.
    threads: int = option(1, "Threads for one pass, the same for every file.", minimum=1)
    batch_size: tuple[int, ...] = option(
        (1,),
        "Images per pass; several numbers give a row for each: 1,8,32.",
        metavar="N,N,…",
        separator=",",
    )
    warmup: int = option(100, "Passes before timing, for each file.", minimum=0)
    runs: int = option(1000, "Timed passes, for each file.", minimum=1)
    starts: int = option(
        7,
        "New processes for each file, which time its loading and first pass; 0: none.",
        minimum=0,
        maximum=1000,
    )
    profile: bool = option(False, "Also tell the time by operator, by the runtime's profiler.")
    imports: tuple[str, ...] = option(
        (),
        "Add what run.py of a bundle printed on a board; its files are compared with each other "
        "alone.",
        flag="import",
        metavar="RESULT.json",
    )
    foreign: ForeignModel = field(default_factory=ForeignModel)
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        # A single number is a list of one, for those who call it from Python.
        given: Any = self.batch_size
        sizes = (given,) if isinstance(given, int) else given
        object.__setattr__(self, "batch_size", tuple(dict.fromkeys(sizes)))
        object.__setattr__(self, "runtime", tuple(dict.fromkeys(_split_names(self.runtime))))
        check(self)
        for size in self.batch_size:
            if size < 1:
                raise UsageError(
                    f"``batch_size={size}``: must be 1 or more", "for example ``batch_size=1,8``"
                )
        if not self.batch_size:
            raise UsageError("``batch_size``: no number", "for example ``batch_size=1``")
        for name in self.runtime:
            RUNTIMES.require(name)


def _split_names(names: tuple[str, ...]) -> list[str]:
    """Return the names of a list whose entries may themselves be lists: `a,b`."""
    found = []
    for entry in names:
        found += [name.strip() for name in entry.split(",") if name.strip()]
    return found


@dataclass(frozen=True)
class SpeedLimit:
    """How much slower than in older results files may be; raises UsageError for no fraction."""

    against: Path | None = option(
        None,
        "JSON that bench wrote of other files or earlier: fail with exit code 3 if a file has "
        "become slower. Its files run again, interleaved with the new ones, where they are still "
        "there; otherwise the medians are compared.",
        panel=LIMIT,
        metavar="OLD.json",
    )
    max_regression: float | str | None = option(
        None,
        "How much longer a pass may take: 5% or 0.05. Default: 5%.",
        panel=LIMIT,
        metavar="X",
    )

    def __post_init__(self) -> None:
        if self.max_regression is not None and self.against is None:
            raise UsageError(
                f"``max_regression={self.max_regression}`` without ``against``",
                "name the JSON of the older benchmark: ``against=OLD.json``",
            )
        # Raises for a text that is none.
        self.fraction  # noqa: B018

    @property
    def fraction(self) -> float:
        """The allowed increase of the time, as a fraction of the old one."""
        if self.max_regression is None:
            return DEFAULT_MAX_REGRESSION
        return parse_fraction("max_regression", str(self.max_regression))


def parse_fraction(name: str, text: str) -> float:
    """Return the fraction that a text has, `5%` or `0.05`; raises UsageError for another one.

    Numbers above 1 need the sign, so that 5 is not taken for 500 %.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(%?)", text.strip())
    value = float(match[1]) if match else -1.0
    if match and match[2]:
        value /= 100
    elif value > 1:
        value = -1.0
    if value < 0:
        raise UsageError(
            f"``{name}={text}``: neither a fraction nor a percentage",
            f"for example ``{name}=5%`` or ``{name}=0.05``",
        )
    return value
