"""Options of any work that is random, takes long, or may use another device."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.config.option import changed, check, option


@dataclass(frozen=True)
class RunConfig:
    """Where and how work runs; raises UsageError for a value out of bounds."""

    seed: int = option(0, "Seed of everything random; same seed, same bytes.", minimum=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
    # On unless switched off: a repeated command is usually that of a killed run.
    resume: bool = option(True, "Continue from OUT.resume if it is there.")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SynthConfig:
    """How many faces are drawn; raises UsageError for a value out of bounds."""

    count: int = option(4000, "Number of faces over all splits.", minimum=70)
    seed: int = changed(RunConfig, "seed", 0)

    def __post_init__(self) -> None:
        check(self)
