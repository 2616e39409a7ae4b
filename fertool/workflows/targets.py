"""Budgets as people write them: a ratio of the input model, or an absolute value with a unit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from fertool.errors import UsageError

COUNTS = {"k": 1e3, "m": 1e6, "g": 1e9}
SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def is_ratio(text: str) -> bool:
    """Return whether a budget has no unit."""
    return not text.strip()[-1:].isalpha()


def parse_target(
    name: str, text: str, current: float, units: Mapping[str, float] = COUNTS
) -> float:
    """Return the asked ratio of `current`, strictly between 0 and 1.

    `text` is a ratio (`0.5`) or an absolute value with a unit (`20M`, `1.5G`, `800k`; or `0.4ms`).
    Raises UsageError naming the option `name` for anything else.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e-?[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = match[2].lower() if match else ""
    if not match or (unit and unit not in units):
        example = "20M" if units is COUNTS else "0.4ms"
        raise UsageError(
            f"``{name}={text}``: neither a ratio nor a number with a unit",
            f"give a ratio, ``{name}=0.5``, or a value with a unit, ``{name}={example}``",
        )
    value = ratio = float(match[1])
    if unit:
        ratio = value * units[unit] / current
    if not 0 < ratio < 1:
        have = ""
        if unit:
            have = f"the model has {current:.3g}; "
        elif value > 1:
            have = f"a number needs a unit, one of {', '.join(units)}; "
        raise UsageError(
            f"``{name}={text}``: must be more than 0 and less than the input model",
            f"{have}try ``{name}=0.5``",
        )
    return ratio


def parse_floors(
    texts: Sequence[str], widths: Mapping[str, int], layers: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """Return the channels by group that ``min_channels`` asks to keep.

    LAYER stands for all channels, LAYER=N or LAYER=0.5 for some of them. `widths` are the channels
    of each group, `layers` those that make them. LAYER may have the wildcards * and ?, or be the
    path of a block. Raises UsageError for one that no layer has, and for a bad number.
    """
    # Of several that a layer matches the strictest counts.
    floors: dict[str, int] = {}
    for text in texts:
        pattern, _, amount = text.partition("=")
        names = _matching_groups(pattern, layers)
        if not names:
            raise UsageError(
                f"``min_channels={text}``: no layer that can be pruned is called {pattern}",
                f"for example ``min_channels={next(iter(widths))}``; see ``dry_run``",
            )
        if amount and not re.fullmatch(r"[0-9]+|0?\.[0-9]+|1\.0*", amount):
            raise UsageError(
                f"``min_channels={text}``: {amount} is not a number of channels",
                f"for example ``min_channels={pattern}=0.5``",
            )
        for name in names:
            floor = _floor_of(amount, widths[name])
            floors[name] = max(floors.get(name, 0), floor)
    return floors


def _matching_groups(pattern: str, layers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the groups that are called so, or have a layer that is."""
    found = []
    for name, members in layers.items():
        if any(_is_within(layer, pattern) for layer in (name, *members)):
            found.append(name)
    return found


def _floor_of(amount: str, width: int) -> int:
    """Return how many of the channels an amount stands for; all of them where it is empty."""
    if not amount:
        return width
    # A point tells a fraction from a number: 1.0 is all of them, 1 is one.
    if "." in amount:
        return min(round(float(amount) * width), width)
    return min(int(amount), width)


def _is_within(layer: str, pattern: str) -> bool:
    return fnmatchcase(layer, pattern) or fnmatchcase(layer, f"{pattern}.*")
