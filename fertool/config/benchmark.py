"""Options of measuring what model files cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from fertool.config.foreign_files import ForeignModel
from fertool.config.option import check, option


@dataclass(frozen=True)
class BenchConfig:
    """How to measure; raises UsageError for a value out of bounds.

    `memory` is measured in a process for each file. `foreign` describes ONNX files without
    fertool's header.
    """

    # Threads, batch, warm-up and runs are those of recipe 1's measurement.
    threads: int = option(1, "Threads for one pass, the same for every file.", minimum=1)
    batch_size: int = option(1, "Images per pass.", minimum=1)
    warmup: int = option(100, "Passes before timing, for each file.", minimum=0)
    runs: int = option(1000, "Timed passes, for each file.", minimum=1)
    foreign: ForeignModel = field(default_factory=ForeignModel)
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
