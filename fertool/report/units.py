"""Numbers as people read them. Files keep SI base units; only these texts round."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fertool.report.plain import plain

MISSING = "-"

_HEADS = ("classifier", "fc", "head")
_STEPS = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


def size_text(size_bytes: float | None) -> str:
    """Return bytes in decimal units: 4870000 is "4.87 MB"."""
    if size_bytes is None:
        return MISSING
    value, prefix = _scaled(size_bytes)
    return f"{_three_digits(value) if prefix else int(value)} {prefix}B"


def count_text(count: float | None) -> str:
    """Return a count with three digits: 1187495 is "1.19 M"."""
    if count is None:
        return MISSING
    value, prefix = _scaled(count)
    return f"{_three_digits(value)} {prefix}" if prefix else f"{int(value)}"


def time_text(seconds: float) -> str:
    """Return a short time with three digits: 0.0348 is "34.8 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{_three_digits(seconds / size)} {unit}"
    raise AssertionError


def p_value_text(p: float) -> str:
    """Return the p-value of a test; it is never 0."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def percent_text(share: float | None) -> str:
    """Return a share as a percentage with one decimal: 0.6417 is "64.2 %"."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def interval_text(
    interval: Sequence[float], factor: float = 100, decimals: int = 1, between: str = " to "
) -> str:
    """Return an interval: (0.625, 0.658) is "62.5 to 65.8"; `factor` 100 for percentages."""
    low, high = (f"{factor * end:.{decimals}f}" for end in interval)
    return f"{low}{between}{high}"


def accuracy_text(figures: Mapping[str, Any]) -> str:
    """Return an accuracy with all that it needs to mean something: interval, split and number of images."""
    interval = interval_text(figures["accuracy_ci95"])
    return f"{percent_text(figures['accuracy'])} [{interval}], {figures['split']}, n = {figures['n']:,}"


def hessian_text(sensitivity: Mapping[str, Any]) -> str:
    """Return the function whose second derivatives a file of traces holds."""
    return "KL divergence" if sensitivity.get("hessian", "kl") == "kl" else "cross-entropy"


def value_text(value: bool | int | float | str) -> str:
    """Return an option's value as people type it, 4.0 as "4", such that different values stay different."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value).lower()


def layer_order(name: str) -> tuple[bool, list[int | str]]:
    """Sort key that puts "features.2" before "features.10", and the last layers of common networks last."""
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
    return name.partition(".")[0] in _HEADS, parts


def short_names(files: Sequence[str]) -> dict[str, str]:
    """Return for each file its shortest trailing path that tells it from the others."""
    parts = {file: file.replace("\\", "/").strip("/").split("/") for file in files}
    names = {}
    for file, own in parts.items():
        others = [other for name, other in parts.items() if name != file]
        depth = next(
            (d for d in range(1, len(own)) if all(other[-d:] != own[-d:] for other in others)),
            len(own),
        )
        names[file] = plain("/".join(own[-depth:]))
    return names


def _scaled(value: float) -> tuple[float, str]:
    prefix, size = next(
        ((p, s) for p, s in reversed(_STEPS) if abs(value) >= 0.9995 * s), _STEPS[0]
    )  # 999,600 is 1.00 M, not 1000 k
    return value / size, prefix


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f}"
