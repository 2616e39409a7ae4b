"""`--recipe FILE.yaml`: presets for the options of a command, under the same names as the flags; flags win."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from fertool.cli.splits import refused_split
from fertool.errors import FertoolError, UsageError

_NOT_PRESETS = {"recipe", "help", "output", "json"}


def apply_recipe(ctx: typer.Context, path: Path | None) -> Path | None:
    """Typer callback (eager): make the recipe's section for this command the defaults of its options.

    Raises UsageError listing every unknown command and option of the whole file at once.
    """
    if path is None or ctx.resilient_parsing:
        return path
    recipe = _read(path)
    root = ctx.find_root().command
    commands: Mapping[str, Any] = getattr(root, "commands", {})
    refusals: list[UsageError] = []
    problems = [f"unknown command '{name}'" for name in recipe if name not in commands]
    for name, section in recipe.items():
        if name in commands:
            known = option_names(commands[name])
            refusals += filter(None, (refused_split(name, key) for key in section if key not in known))
            problems += [f"unknown option '{key}' of {name}" for key in section if key not in known]
    for refusal in refusals:
        raise refusal
    if problems:
        raise UsageError(f"{path}: {'; '.join(problems)}", "the names are those of the flags, without the dashes")
    known, section = option_names(ctx.command), recipe.get(ctx.command.name or "", {})
    repeatable = {parameter.name for parameter in ctx.command.params if getattr(parameter, "multiple", False)}
    presets = {
        known[key]: [value] if known[key] in repeatable and not isinstance(value, list) else value
        for key, value in section.items()
    }
    ctx.default_map = {**(ctx.default_map or {}), **presets}
    return path


def option_names(command: Any) -> dict[str, str]:
    """Return flag name without dashes → parameter name, for the options that a recipe may set."""
    return {
        flag.removeprefix("--"): parameter.name
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--") and flag.removeprefix("--") not in _NOT_PRESETS
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FertoolError(f"{path}: no such file", "recipes/ holds the ones that come with fertool") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FertoolError(f"{path}: cannot read the recipe ({error})", "name a YAML file") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f":{place.line + 1}" if place else ""
        problem = getattr(error, "problem", error)
        raise UsageError(f"{path}{line}: not valid YAML ({problem})", "see recipes/ for examples") from None
    if not isinstance(content, dict) or not all(isinstance(section, dict) for section in content.values()):
        raise UsageError(f"{path}: a recipe maps commands to their options", "for example  distill: {epochs: 30}")
    return content
