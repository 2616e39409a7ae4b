"""Numbers as people read them. Files keep SI base units; only these texts round."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from fertool.report.printable import printable
from fertool.results import Evaluation, FileResult, Hessian, ModelSummary

MISSING = "-"

_LAST_LAYERS = ("classifier", "fc", "head")
_PREFIXES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_TIME_UNITS = (("s", 1.0), ("ms", 1e-3))


def size_text(size_bytes: float | None) -> str:
    """Return bytes in decimal units: 4870000 is "4.87 MB"."""
    if size_bytes is None:
        return MISSING
    value, prefix = _scale(size_bytes)
    digits = _three_digits(value) if prefix else str(int(value))
    return f"{digits} {prefix}B"


def count_text(count: float | None) -> str:
    """Return a count with three digits: 1187495 is "1.19 M"."""
    if count is None:
        return MISSING
    value, prefix = _scale(count)
    if not prefix:
        return str(int(value))
    return f"{_three_digits(value)} {prefix}"


def time_text(seconds: float) -> str:
    """Return a short time with three digits: 0.0348 is "34.8 ms"."""
    for unit, size in _TIME_UNITS:
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 thread", "4 threads"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def p_value_text(p: float) -> str:
    """Return the p-value of a test; it is never 0."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}"


def percent_text(fraction: float | None) -> str:
    """Return a fraction as a percentage with one decimal: 0.6417 is "64.2 %"."""
    return MISSING if fraction is None else f"{100 * fraction:.1f} %"


def interval_text(
    interval: Sequence[float], factor: float = 100, decimals: int = 1, between: str = " to "
) -> str:
    """Return an interval: (0.625, 0.658) is "62.5 to 65.8"; `factor` 100 for percentages."""
    low, high = interval
    return f"{factor * low:.{decimals}f}{between}{factor * high:.{decimals}f}"


class MeasuredAccuracy(Protocol):
    """An accuracy with its 95 % interval, on `n` images: of a result or of a header."""

    @property
    def n(self) -> int: ...  # noqa: D102

    @property
    def accuracy(self) -> float: ...  # noqa: D102

    @property
    def accuracy_ci95(self) -> tuple[float, float]: ...  # noqa: D102


def accuracy_text(figures: MeasuredAccuracy, split: str) -> str:
    """Return an accuracy with its 95 % interval, split and number of images."""
    interval = interval_text(figures.accuracy_ci95)
    return f"{percent_text(figures.accuracy)} [{interval}], {split}, n = {figures.n:,}"


def accuracy_cell(figures: MeasuredAccuracy | None, split: str = "") -> str:
    """Return an accuracy over its interval, and with a `split` over this and the number of images.

    These are not needed where a caption has them.
    """
    if figures is None:
        return MISSING
    lines = [percent_text(figures.accuracy), interval_text(figures.accuracy_ci95, between="-")]
    if split:
        lines.append(f"{split}, n = {figures.n:,}")
    return "\n".join(lines)


def speedup_cell(speedup: float, interval: Sequence[float]) -> str:
    """Return how many times as fast, over the interval."""
    return f"{speedup:.2f} x\n{interval_text(interval, factor=1, decimals=2, between='-')}"


def channels_text(channels: int) -> str:
    """Return the color of an image with so many channels."""
    return {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")


def hessian_text(hessian: Hessian) -> str:
    """Return the loss whose second derivatives a file of traces holds."""
    return "KL divergence" if hessian == "kl" else "cross-entropy"


def value_text(value: bool | int | float | str) -> str:
    """Return an option's value as people type it, 4.0 as "4", and different values differently."""
    if not isinstance(value, float):
        return str(value).lower()
    short = f"{value:g}"
    # Six digits may be those of another value.
    return short if float(short) == value else repr(value)


def layer_order(name: str) -> tuple[bool, list[int | str]]:
    """Return a sort key that puts "features.2" before "features.10".

    The last layers of common networks come last.
    """
    parts: list[int | str] = []
    for part in re.split(r"([0-9]+)", name):
        parts.append(int(part) if part.isdecimal() else part)
    return name.partition(".")[0] in _LAST_LAYERS, parts


def points_text(difference: float) -> str:
    """Return a difference of accuracies: -0.0013 is "-0.1 points"."""
    points = 100 * difference
    # What would round to zero, and is not, has its second digit.
    decimals = 2 if 0 < abs(points) < 0.05 else 1
    return f"{points:+.{decimals}f} points"


def short_file_names(entries: Iterable[FileResult | Evaluation | ModelSummary]) -> dict[str, str]:
    """Return `short_names` of the files of results."""
    return short_names([str(entry.file) for entry in entries])


def short_names(files: Sequence[str]) -> dict[str, str]:
    """Return for each file its shortest trailing path that tells it from the others."""
    parts = {file: file.replace("\\", "/").strip("/").split("/") for file in files}
    names = {}
    for file, own in parts.items():
        others = [other for name, other in parts.items() if name != file]
        names[file] = printable("/".join(_distinct_tail(own, others)))
    return names


def _distinct_tail(path: Sequence[str], others: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the fewest last parts of a path in which no other ends; all where there are none."""
    # The whole path may be the end of another one: then it is shown whole.
    for depth in range(1, len(path)):
        tail = path[-depth:]
        if all(other[-depth:] != tail for other in others):
            return tail
    return path


def _scale(value: float) -> tuple[float, str]:
    """Return a value between 1 and 1000 and its SI prefix."""
    for prefix, size in _PREFIXES:
        # With three digits 999,600 is 1.00 M, not 1000 k.
        if abs(value) >= 0.9995 * size:
            return value / size, prefix
    return value, ""


def _three_digits(value: float) -> str:
    # The bounds are where rounding would add a digit: 9.996 is 10.0.
    if abs(value) < 9.995:
        return f"{value:.2f}"
    if abs(value) < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}"
