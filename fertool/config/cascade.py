"""Options of cascades."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.config.option import check, option


@dataclass(frozen=True)
class CascadeConfig:
    """How many images go on to the second model; raises UsageError for a share out of bounds."""

    share: float = option(
        0.3,
        "Fraction of the validation images that go on to the second model: those with the smallest "
        "margins of the first.",
        above=0,
        below=1,
    )

    def __post_init__(self) -> None:
        check(self)
