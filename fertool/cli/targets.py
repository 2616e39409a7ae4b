"""Budgets as people write them: a ratio of the input model, or an absolute value with a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fertool.errors import UsageError

COUNTS = {"k": 1e3, "m": 1e6, "g": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def is_ratio(text: str) -> bool:
    """Return whether a budget has no unit."""
    return not text.strip()[-1:].isalpha()


def parse_target(flag: str, text: str, current: float, units: Mapping[str, float] = COUNTS) -> float:
    """Return the asked ratio of `current`, strictly between 0 and 1.

    `text` is a ratio (`0.5`) or an absolute value with a unit (`20M`, `1.5G`, `800k`; or `0.4ms`). Raises UsageError
    naming `flag` for anything else.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = match[2].lower() if match else ""
    if not match or (unit and unit not in units):
        example = "20M" if units is COUNTS else "0.4ms"
        raise UsageError(
            f"{flag} {text}: not a number", f"give a ratio, {flag} 0.5, or a value with a unit, {flag} {example}"
        )
    value = float(match[1])
    ratio = value * units[unit] / current if unit else value
    if not 0 < ratio < 1:
        have = f"the model has {current:.3g}; " if unit else ""
        raise UsageError(f"{flag} {text}: must be more than 0 and less than the input model", f"{have}try {flag} 0.5")
    return ratio
