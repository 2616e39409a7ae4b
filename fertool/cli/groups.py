"""Let dataclasses of options stand as parameters of a command.

Typer reads flags from a function's signature. Here a parameter whose type is a dataclass stands for one flag per
option: those of a config (`fertool.config`), of the configs that it holds, and fields that Typer's own annotations
describe, for options that only the command line has. The command receives the dataclass filled in.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_type_hints

import typer

from fertool.cli.processes import require_one
from fertool.config.option import Option, about


def command(function: Callable[..., None], *, shared: bool = False) -> Callable[..., None]:
    """Return `function` with every dataclass parameter replaced by one keyword parameter per option.

    Several processes are refused unless it is `shared`.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if _is_config(hints[name]):
            groups[name] = hints[name]
            parameters += _parameters(parameter.default)
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=keyword))

    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = _filled(group, values)
        own = {name: value for name, value in values.items() if name in hints}
        if not shared:
            require_one(function.__name__)
        function(**own)

    flat.__name__ = function.__name__
    flat.__doc__ = function.__doc__
    flat.__module__ = function.__module__
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def training_command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the same for a command whose work several processes can share."""
    return command(function, shared=True)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _parameters(default: Any) -> Iterator[inspect.Parameter]:
    """Yield a keyword parameter for each option of a config; `default` is the config with its defaults."""
    hints = get_type_hints(type(default), include_extras=True)
    for field in dataclasses.fields(default):
        kind, value, known = hints[field.name], getattr(default, field.name), about(field)
        if _is_config(kind):
            yield from _parameters(value)
            continue
        if known is not None:
            kind = Annotated[kind, _typer_option(field.name, kind, known)]
        elif not hasattr(kind, "__metadata__"):
            continue
        keyword = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, keyword, default=value, annotation=kind)


def _typer_option(name: str, kind: Any, known: Option) -> Any:
    flag = "--" + name.replace("_", "-")
    names = [f"{flag}/--no-{flag.removeprefix('--')}"] if kind is bool else [flag]
    # Open bounds are checked by the config itself: Typer has none.
    return typer.Option(
        *names,
        help=known.help,
        min=known.minimum,
        max=known.maximum,
        rich_help_panel=known.panel or None,
    )


def _filled(config: type[Any], values: dict[str, Any]) -> Any:
    """Return a config whose options have these values; what is not among them keeps its default."""
    hints = get_type_hints(config)
    own: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if _is_config(hints[field.name]):
            own[field.name] = _filled(hints[field.name], values)
        elif field.name in values:
            own[field.name] = values[field.name]
    return config(**own)
