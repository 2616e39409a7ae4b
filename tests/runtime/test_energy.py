from __future__ import annotations

from pathlib import Path

import pytest

from fertool.runtime.energy import open_energy_meter


def write_zone(folder: Path, name: str, energy_uj: int, range_uj: int = 999) -> Path:
    zone = folder / name
    zone.mkdir()
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n", encoding="ascii")
    (zone / "energy_uj").write_text(f"{energy_uj}\n", encoding="ascii")
    return zone / "energy_uj"


def test_the_energy_of_an_image_is_that_of_all_packages(tmp_path: Path) -> None:
    first = write_zone(tmp_path, "intel-rapl:0", 900)
    second = write_zone(tmp_path, "intel-rapl:1", 100)
    # A part of the first one, which would count twice.
    write_zone(tmp_path, "intel-rapl:0:0", 0)
    meter = open_energy_meter(tmp_path)
    now = [0.0]

    def forward() -> None:
        now[0] += 0.3
        # This counter starts anew at 1000.
        first.write_text(str((900 + round(now[0] * 400)) % 1000), encoding="ascii")
        second.write_text(str(100 + round(now[0] * 100)), encoding="ascii")

    # Four passes take 1.2 s: 480 + 120 microjoules for 8 images.
    assert meter.measure([forward], 2, clock=lambda: now[0]) == pytest.approx(75e-6)
    assert meter.source.startswith("RAPL, 2 packages")


def test_a_machine_without_a_counter_has_no_energy_and_says_why(tmp_path: Path) -> None:
    meter = open_energy_meter(tmp_path)
    assert meter.measure([lambda: None], 1) is None
    assert "has no counter" in meter.source


def test_a_counter_that_only_root_reads(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", 0).unlink()
    meter = open_energy_meter(tmp_path)
    assert meter.measure([lambda: None], 1) is None
    assert "root only" in meter.source
