"""Budgets as people write them: a ratio of the input model, or an absolute value with a unit."""

from __future__ import annotations

import re

from fertool.errors import UsageError

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}


def parse_target(flag: str, text: str, current: float) -> float:
    """Return the asked ratio of `current`, strictly between 0 and 1.

    `text` is a ratio (`0.5`) or an absolute value with a unit (`20M`, `1.5G`, `800k`). Raises UsageError naming
    `flag` for anything else.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*([kmgKMG]?)\s*", text)
    if not match:
        raise UsageError(
            f"{flag} {text}: not a number", f"give a ratio, {flag} 0.5, or a value with a unit, {flag} 20M"
        )
    value, unit = float(match[1]), match[2].lower()
    ratio = value * _UNITS[unit] / current if unit else value
    if not 0 < ratio < 1:
        have = f"the model has {current:.3g}; " if unit else ""
        raise UsageError(f"{flag} {text}: must be more than 0 and less than the input model", f"{have}try {flag} 0.5")
    return ratio
