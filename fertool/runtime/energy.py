"""The energy that the processor takes for an image, where Linux tells it (RAPL powercap)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fertool.runtime.predictor import Forward

_ZONES = Path("/sys/class/powercap")
_MEASURED_S = 1.0
"""The counters move once a millisecond, and the idle machine's part is to be steady."""
_MICROJOULE = 1e-6


@dataclass(frozen=True)
class _Zone:
    """A counter of one processor package: its file, and the value after which it starts anew."""

    counter: Path
    range_uj: int

    def read_uj(self) -> int:
        return int(self.counter.read_text(encoding="ascii"))


@dataclass(frozen=True)
class EnergyMeter:
    """The counters of all processor packages; `source` says what they are, or why there are none.

    They count whatever runs on the machine, idle power included.
    """

    zones: tuple[_Zone, ...]
    source: str

    def measure(
        self,
        passes: Sequence[Forward],
        images: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> float | None:
        """Return the joules of one image, from passes over `images` during a second.

        None without a counter.
        """
        if not self.zones:
            return None
        # One reading before and after, since a counter moves once a millisecond only.
        before = [zone.read_uj() for zone in self.zones]
        end = clock() + _MEASURED_S
        count = 0
        while clock() < end:
            passes[count % len(passes)]()
            count += 1
        used_uj = 0
        for zone, start_uj in zip(self.zones, before, strict=True):
            # The counter starts anew after some minutes.
            used_uj += (zone.read_uj() - start_uj) % zone.range_uj
        return used_uj * _MICROJOULE / (max(1, count) * images)


def open_energy_meter(folder: Path = _ZONES) -> EnergyMeter:
    """Return the meter of this machine; `folder` has the zones of Linux's powercap."""
    zones = []
    unreadable = False
    # Zones of packages alone: intel-rapl:0:0, cores or memory, is a part of intel-rapl:0.
    for zone in sorted(folder.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue
        try:
            range_text = (zone / "max_energy_range_uj").read_text(encoding="ascii")
            found = _Zone(zone / "energy_uj", int(range_text) + 1)
            found.read_uj()
        except (OSError, ValueError):
            unreadable = True
            continue
        zones.append(found)
    if zones:
        packages = f"{len(zones)} package" if len(zones) == 1 else f"{len(zones)} packages"
        return EnergyMeter(tuple(zones), f"RAPL, {packages}, with all that runs on the machine")
    if unreadable:
        return EnergyMeter((), "no energy: the counters of RAPL are readable by root only")
    return EnergyMeter((), "no energy: the system has no counter of it (RAPL powercap)")
