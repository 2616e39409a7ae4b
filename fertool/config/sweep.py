"""Options of a sweep: the seeds and the grid of options that a training is repeated with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from fertool.config.distillation import LogitsConfig
from fertool.config.network import NetworkConfig
from fertool.config.option import is_scalar, option, typed, types_of, with_values
from fertool.config.option_text import parse_value
from fertool.config.training import TRAINING
from fertool.errors import UsageError, unknown_name

Value = bool | int | float | str
Axes = Mapping[str, tuple[Value, ...]]
"""The values of each option that a grid varies, by the option's name in recipes."""
_MAX_SEED_DIGITS = 9


@dataclass(frozen=True)
class SweepTexts:
    """What is to be trained more than once, as it is written at a command line."""

    seeds: str | None = option(
        None,
        "Train once with each, for example 0,1,2: mean and standard deviation; rows in "
        "OUT.seeds.json, models beside -o, the best by validation in -o.",
        metavar="S,S,…",
        panel=TRAINING,
    )
    grid: str | None = option(
        None,
        "Train with every combination of options, for example "
        "'lr=1e-3,2e-3;ema-decay=0,0.99': rows in OUT.grid.json, the best by validation in -o.",
        metavar="NAME=V,V;…",
        panel=TRAINING,
    )


@dataclass(frozen=True)
class SweepConfig:
    """What a training is repeated with; raises UsageError for a seed or a value that is repeated.

    Without `seeds` the run's own seed is used, without `axes` the options are the run's own.
    """

    seeds: tuple[int, ...] = ()
    axes: Axes = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = ",".join(map(str, self.seeds))
        if min(self.seeds, default=0) < 0:
            raise UsageError(f"``seeds={given}``: a seed is below 0", "for example 0, 1 and 2")
        if _has_repeats(self.seeds):
            raise UsageError(
                f"``seeds={given}``: a seed stands there twice",
                "the same seed gives the same model",
            )
        for name, values in self.axes.items():
            if not values or _has_repeats(values):
                listed = ",".join(map(str, values))
                raise UsageError(
                    f"``grid={name}={listed}``: no value, or one that repeats",
                    "name every value once",
                )

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Yield the options of each combination of the grid's values, by their names in recipes."""
        for values in product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def require_valid(self, config: Any) -> None:
        """Raise UsageError for a combination that no single training with `config` would accept."""
        for options in self.combinations():
            with_options(config, options)


def _has_repeats(values: Sequence[Value]) -> bool:
    return len(set(values)) < len(values)


def sweep_config(
    config: Any, seeds: Sequence[int] | None, grid: Mapping[str, Sequence[Any]] | None
) -> SweepConfig:
    """Return the sweep of a workflow with this `config`, all its combinations checked.

    A grid's names are those of fields or of recipes. Raises UsageError for a name that is no option
    of the training, and as `SweepConfig` does.
    """
    if seeds is None and not grid:
        raise UsageError("neither ``seeds`` nor ``grid``: nothing to repeat", "give one of them")
    kinds = axis_types(config)
    axes: dict[str, tuple[Value, ...]] = {}
    # In Python a grid's options may be written like the fields, as arguments of a function are.
    for name, values in (grid or {}).items():
        axis = require_axis(name, kinds)
        axes[axis] = tuple(typed(kinds[axis], value) for value in values)
    asked = SweepConfig(tuple(seeds or ()), axes)
    asked.require_valid(config)
    return asked


def require_axis(name: str, kinds: Mapping[str, Any]) -> str:
    """Return the name in recipes of an option of a grid; raises UsageError for another name."""
    axis = name.replace("_", "-")
    if axis in ("seed", "seeds"):
        raise UsageError(
            f"``grid={name}``: a seed is no axis",
            "``seeds=0,1,2`` trains every combination so often",
        )
    if axis not in kinds:
        raise unknown_name("option in ``grid``", axis, kinds)
    return axis


def axis_types(config: Any) -> dict[str, Any]:
    """Return the types of the options that a grid may vary, by their names in recipes.

    They are the numbers, switches and choices of the training and its method, not of the network.
    """
    # The summary compares trainings of one network; logits would be written to one file again and
    # again.
    excluded = {*types_of(NetworkConfig()), *types_of(LogitsConfig())}
    kinds: dict[str, Any] = {}
    for name, kind in types_of(config).items():
        if name not in excluded and is_scalar(kind):
            kinds[name.replace("_", "-")] = kind
    return kinds


def with_options(config: Any, options: Mapping[str, Value]) -> Any:
    """Return a config with options, by their names in recipes, in the place of its own."""
    values = {name.replace("-", "_"): value for name, value in options.items()}
    return with_values(config, values)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of `S,S,...`; raises UsageError for other text."""
    seeds = []
    for word in text.split(","):
        digits = word.strip()
        # Longer ones are no seeds, and Python refuses to convert thousands of digits.
        if not digits.isdecimal() or len(digits) > _MAX_SEED_DIGITS:
            raise UsageError(
                f"``seeds={text}``: not whole numbers with commas between",
                "for example ``seeds=0,1,2``",
            )
        seeds.append(int(digits))
    return tuple(seeds)


def parse_grid(text: str) -> list[tuple[str, list[str]]]:
    """Return the names and the values, both as they are written, of `NAME=V,V;NAME=V,V`.

    Raises UsageError for other text.
    """
    axes = []
    for axis in text.split(";"):
        part = axis.strip()
        # A semicolon may stand at the end, too.
        if not part:
            continue
        name, equals, listed = part.partition("=")
        words = [word.strip() for word in listed.split(",")]
        if not (name.strip() and equals and all(words)):
            raise UsageError(
                f"``grid={text}``: '{part}' is not NAME=VALUE,VALUE",
                "for example ``grid='lr=0.001,0.002;ema-decay=0,0.999'``",
            )
        axes.append((name.strip(), words))
    if not axes:
        raise UsageError(
            f"``grid='{text}'``: names no option", "for example ``grid='lr=0.001,0.002'``"
        )
    return axes


def parse_values(axis: str, kind: Any, words: Sequence[str]) -> tuple[Value, ...]:
    """Return the values of one option of a grid; raises UsageError for those that it cannot have.

    Every value is converted by the option that it is for.
    """
    values = []
    name = axis.replace("-", "_")
    for word in words:
        try:
            values.append(parse_value(kind, word))
        except ValueError as error:
            raise UsageError(
                f"``{name}={word}``: {error}", f"see the values of ``{name}``"
            ) from None
    return tuple(values)
