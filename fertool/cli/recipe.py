"""`--recipe FILE.yaml`: presets for the options of a command, under the same names as the flags; flags win."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fertool.cli.splits import refused_split
from fertool.errors import UsageError
from fertool.strict_json import shown

if TYPE_CHECKING:
    from fertool.cli.presets import Presets

_NOT_PRESETS = {"recipe", "help", "output", "json"}
_LISTED = 20
"""Problems that an error lists."""
_LONGEST_REASON = 200


def apply_recipe(ctx: typer.Context, path: Path | None) -> Path | None:
    """Typer callback (eager): make the recipe's section for this command the defaults of its options.

    Raises UsageError listing every unknown command and option of the whole file at once, else every value that an
    option of this command does not take.
    """
    if path is None or ctx.resilient_parsing:
        return path
    from fertool.cli.presets import read_presets

    recipe = read_presets(path)
    _require_known(ctx, path, recipe)
    parameters, section = option_parameters(ctx.command), recipe.get(ctx.command.name or "", {})
    reasons = {key: _unfit(ctx, preset.value, parameters[key]) for key, preset in section.items()}
    problems = [
        f"{path}:{section[key].line}: {ctx.command.name}: {key} is {shown(section[key].value)}: {reason}"
        for key, reason in reasons.items()
        if reason
    ]
    if problems:
        raise UsageError(
            _joined(problems), f"the values are those of the flags; see: {ctx.command_path} --help"
        )
    presets = {
        parameters[key].name: _as_given(preset.value, parameters[key])
        for key, preset in section.items()
    }
    ctx.default_map = {**(ctx.default_map or {}), **presets}
    return path


def option_names(command: Any) -> dict[str, str]:
    """Return flag name without dashes → parameter name, for the options that a recipe may set."""
    return {flag: parameter.name for flag, parameter in option_parameters(command).items()}


def option_parameters(command: Any) -> dict[str, Any]:
    """Return flag name without dashes → parameter, for the options that a recipe may set."""
    return {
        flag.removeprefix("--"): parameter
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--") and flag.removeprefix("--") not in _NOT_PRESETS
    }


def _require_known(ctx: typer.Context, path: Path, recipe: Presets) -> None:
    root = ctx.find_root().command
    commands: Mapping[str, Any] = getattr(root, "commands", {})
    problems = [f"unknown command {_quoted(name)}" for name in recipe if name not in commands]
    for name, section in recipe.items():
        if name not in commands:
            continue
        known = option_names(commands[name])
        unknown = [key for key in section if key not in known]
        for key in unknown:
            refusal = refused_split(name, key)
            if refusal:
                raise refusal
        problems += [f"unknown option {_quoted(key)} of {name}" for key in unknown]
    if problems:
        hint = "the names are those of the flags, without the dashes"
        raise UsageError(f"{path}: {_joined(problems)}", hint)


def _unfit(ctx: typer.Context, value: str | list[str], parameter: Any) -> str:
    """Return why an option does not take a value of a recipe, or nothing."""
    if isinstance(value, list) and not parameter.multiple:
        return "one value expected"
    try:
        converted = parameter.process_value(ctx, _as_given(value, parameter))
    except typer.BadParameter as error:
        reason = error.message.rstrip(".").removeprefix("Value error, ")
        return reason if len(reason) <= _LONGEST_REASON else "not what the option takes"
    if isinstance(converted, float) and not math.isfinite(converted):
        return "a finite number expected"
    return ""


def _as_given(value: str | list[str], parameter: Any) -> str | list[str]:
    return [value] if parameter.multiple and isinstance(value, str) else value


def _joined(problems: list[str]) -> str:
    more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    return "; ".join(problems[:_LISTED]) + more


def _quoted(name: str) -> str:
    return f"'{name}'" if name.isprintable() and len(name) <= _LISTED * 4 else shown(name)
