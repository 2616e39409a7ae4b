from __future__ import annotations

import pytest

from fertool.report.units import (
    count_text,
    interval_text,
    percent_text,
    short_names,
    size_text,
    time_text,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (4_870_000, "4.87 MB"),
        (44_761_115, "44.8 MB"),
        (None, "-"),
    ],
)
def test_sizes_are_decimal(value: int | None, text: str) -> None:
    assert size_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (548.3, "548"), (999_700, "1.00 M"), (1_187_495, "1.19 M"), (312_757_760, "313 M")],
)
def test_counts_have_three_digits(value: float, text: str) -> None:
    assert count_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0348, "34.8 ms"),
        (0.00182, "1.82 ms"),
        (41.2e-6, "41.2 µs"),
        (2.5, "2.50 s"),
        (0, "0.00 µs"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_shares_and_intervals() -> None:
    assert percent_text(0.6417) == "64.2 %"
    assert interval_text((0.6258, 0.6572)) == "62.6 to 65.7"
    assert interval_text((1.9, 2.126), 1, 2, between="-") == "1.90-2.13"


def test_names_are_as_short_as_they_stay_different() -> None:
    names = short_names(
        ["build/a/student.pt", "build/b/student.pt", "build/b/teacher.pt", "/x/y.onnx"]
    )
    assert list(names.values()) == ["a/student.pt", "b/student.pt", "teacher.pt", "y.onnx"]
    assert short_names(["student.pt", "b/student.pt"]) == {
        "student.pt": "student.pt",
        "b/student.pt": "b/student.pt",
    }
