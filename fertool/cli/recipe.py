"""`--recipe FILE.yaml`: presets for the options of a command, named as its flags; flags win."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fertool.config.splits import refused_split
from fertool.errors import UsageError, join_problems
from fertool.strict_json import shown

if TYPE_CHECKING:
    from fertool.artifact.recipe_file import Preset, Presets

_NOT_PRESETS = {"recipe", "help", "output", "json"}
_LONGEST_REASON = 200
_LONGEST_NAME = 80
"""Characters of what an error quotes."""


def apply_recipe(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make the recipe's section for this command the defaults of its options.

    A callback of Typer, an eager one: the defaults have to be there before other options are read.
    Raises UsageError listing every unknown command and option of the whole file at once, else every
    value that an option of this command does not take.
    """
    if path is None or ctx.resilient_parsing:
        return path
    from fertool.artifact.recipe_file import read_presets

    recipe = read_presets(path)
    _require_known(ctx, path, recipe)
    section = recipe.get(ctx.command.name or "", {})
    parameters = option_parameters(ctx.command)
    _require_fit(ctx, path, section, parameters)
    presets = {}
    for key, preset in section.items():
        presets[parameters[key].name] = _as_given(preset.value, parameters[key])
    ctx.default_map = {**(ctx.default_map or {}), **presets}
    return path


def option_names(command: Any) -> dict[str, str]:
    """Return flag name without dashes → parameter name, for the options that a recipe may set."""
    return {flag: parameter.name for flag, parameter in option_parameters(command).items()}


def option_parameters(command: Any) -> dict[str, Any]:
    """Return flag name without dashes → parameter, for the options that a recipe may set."""
    parameters = {}
    for parameter in command.params:
        for flag in parameter.opts:
            name = flag.removeprefix("--")
            if flag.startswith("--") and name not in _NOT_PRESETS:
                parameters[name] = parameter
    return parameters


def _require_known(ctx: typer.Context, path: Path, recipe: Presets) -> None:
    """Raise UsageError that lists all commands and options of a recipe that do not exist."""
    root = ctx.find_root().command
    commands: Mapping[str, Any] = getattr(root, "commands", {})
    unknown_commands: list[str] = []
    unknown_options: list[str] = []
    for name, section in recipe.items():
        if name in commands:
            unknown_options += _unknown_options(name, commands[name], section)
        else:
            unknown_commands.append(f"unknown command {_quoted(name)}")
    problems = unknown_commands + unknown_options
    if problems:
        hint = "the names are those of the flags, without the dashes"
        raise UsageError(f"{path}: {join_problems(problems)}", hint)


def _unknown_options(name: str, command: Any, section: Iterable[str]) -> list[str]:
    """Return what is wrong with the options of a command's section.

    Raises UsageError for one that would choose on the test images.
    """
    known = option_names(command)
    problems = []
    for key in section:
        if key in known:
            continue
        refusal = refused_split(name, key)
        if refusal:
            raise refusal
        problems.append(f"unknown option {_quoted(key)} of {name}")
    return problems


def _require_fit(
    ctx: typer.Context, path: Path, section: Mapping[str, Preset], parameters: Mapping[str, Any]
) -> None:
    """Raise UsageError that lists all values of a section which their options do not take."""
    problems = []
    for key, preset in section.items():
        reason = _unfit(ctx, preset.value, parameters[key])
        if reason:
            place = f"{path}:{preset.line}: {ctx.command.name}"
            problems.append(f"{place}: {key} is {shown(preset.value)}: {reason}")
    if problems:
        hint = f"the values are those of the flags; see: {ctx.command_path} --help"
        raise UsageError(join_problems(problems), hint)


def _unfit(ctx: typer.Context, value: str | list[str], parameter: Any) -> str:
    """Return why an option does not take a value of a recipe, or nothing."""
    if isinstance(value, list) and not parameter.multiple:
        return "one value expected"
    try:
        converted = parameter.process_value(ctx, _as_given(value, parameter))
    except typer.BadParameter as error:
        reason = error.message.rstrip(".").removeprefix("Value error, ")
        # Some list all choices there are.
        if len(reason) > _LONGEST_REASON:
            return "not what the option takes"
        return reason
    if isinstance(converted, float) and not math.isfinite(converted):
        return "a finite number expected"
    return ""


def _as_given(value: str | list[str], parameter: Any) -> str | list[str]:
    # Of an option that may be repeated Typer takes a list only.
    if parameter.multiple and isinstance(value, str):
        return [value]
    return value


def _quoted(name: str) -> str:
    if name.isprintable() and len(name) <= _LONGEST_NAME:
        return f"'{name}'"
    return shown(name)
