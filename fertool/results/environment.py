"""Where figures were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

from fertool.results.fields import described
from fertool.strict_json import Count, Name, Text


@dataclass(frozen=True)
class Environment:
    """Where a benchmark ran; no host name."""

    processor: Annotated[Text, described("name of the processor")]
    cores: Annotated[Count | None, described("cores that the process may use")] = None
    system: Annotated[Text, described("operating system")] = ""
    python: Annotated[Text, described("version of Python")] = ""
    versions: Annotated[
        Mapping[Name, Text], Meta(max_length=100), described("versions of the libraries")
    ] = field(default_factory=dict)
    instruction_sets: Annotated[
        tuple[Name, ...],
        Meta(max_length=100),
        described("vector instructions of the processor, as the system names them"),
    ] = ()
    governor: Annotated[
        Name | None, described("how the clock is chosen: cpufreq's governor, where it is told")
    ] = None

    @property
    def machine(self) -> tuple[str, str, int | None]:
        """What two measurements must have in common for their times to be compared."""
        return self.processor, self.system, self.cores
