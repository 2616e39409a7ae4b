"""`--seeds` and `--grid`: the texts of a sweep's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from fertool.config.splits import refused_split
from fertool.config.sweep import (
    Axes,
    SweepConfig,
    SweepTexts,
    Value,
    axis_types,
    parse_grid,
    parse_seeds,
    parse_values,
    require_axis,
)
from fertool.errors import UsageError

_GIVEN = {"COMMANDLINE": 2, "DEFAULT_MAP": 1}
"""Where a value comes from: a flag wins over a recipe, a recipe over the default."""


def requested_sweep(
    context: typer.Context, texts: SweepTexts, config: Any, seed: int
) -> SweepConfig | None:
    """Return the sweep that --seeds and --grid ask for, None for a single training.

    Raises UsageError for a name, a value or a combination that no single training with `config`
    would accept either, and for options that exclude each other.
    """
    seeds = _seeds(context, texts.seeds, seed)
    # `--grid ''` is given, and names no option: an error.
    axes: Axes = {}
    if texts.grid is not None:
        axes = _axes(context, texts.grid, config)
    if seeds is None and not axes:
        return None
    asked = SweepConfig(seeds or (seed,), axes)
    asked.require_valid(config)
    return asked


def _seeds(context: typer.Context, text: str | None, seed: int) -> tuple[int, ...] | None:
    """Return the seeds of --seeds, None where --seed counts."""
    if text is None:
        return None
    rank_of_one, rank_of_several = _rank(context, "seed"), _rank(context, "seeds")
    if rank_of_one > rank_of_several:
        return None
    if rank_of_one == rank_of_several:
        raise UsageError(
            f"--seed {seed} and --seeds {text} exclude each other",
            "give all the seeds with --seeds",
        )
    return parse_seeds(text)


def _axes(context: typer.Context, grid: str, config: Any) -> Axes:
    """Read `NAME=V,V;NAME=V,V`."""
    kinds = axis_types(config)
    axes: dict[str, tuple[Value, ...]] = {}
    for name, words in parse_grid(grid):
        axis = _require_free_axis(context, name, kinds)
        values = parse_values(axis, kinds[axis], words)
        if axis in axes or len(set(values)) < len(values):
            written = f"{name}={','.join(words)}"
            raise UsageError(
                f"--grid {grid}: '{written}' repeats a name or a value", "name every value once"
            )
        axes[axis] = values
    return axes


def _require_free_axis(context: typer.Context, name: str, kinds: Mapping[str, Any]) -> str:
    """Return the option that a grid may vary; raises UsageError for one that a flag sets."""
    refusal = refused_split(context.command.name, name)
    if refusal:
        raise refusal
    axis = require_axis(name, kinds)
    if _rank(context, axis.replace("-", "_")) == _GIVEN["COMMANDLINE"]:
        raise UsageError(
            f"--{axis}: --grid gives its values",
            f"leave --{axis} out, or take it out of --grid",
        )
    return axis


def _rank(context: typer.Context, name: str) -> int:
    source = context.get_parameter_source(name)
    if source is None:
        return 0
    return _GIVEN.get(source.name, 0)
