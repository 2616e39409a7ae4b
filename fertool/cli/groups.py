"""Let dataclasses of options stand as parameters of a command.

Typer reads flags from a function's signature. Here a parameter whose type is a dataclass stands for
one flag per option: those of a config (`fertool.config`), of the configs that it holds, and fields
that Typer's own annotations describe, for options that only the command line has. The command
receives the dataclass filled in.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperOption

from fertool.cli.flags import with_flags
from fertool.config.option import Option, about, help_of, type_of
from fertool.config.option_text import is_map, type_as_given, value_as_given, without_none
from fertool.workflows.processes import require_one_process


def with_options(function: Callable[..., None], *, shared: bool) -> Callable[..., None]:
    """Return `function` with one keyword parameter per option in the place of dataclasses.

    Several processes are refused unless it is `shared`.
    """
    # With extras: Typer's own annotations are what it reads options from.
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

    # Typer passes one value per flag; the command gets them as the configs that it asks for.
    def flat(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = _filled(group, values)
        own = {name: value for name, value in values.items() if name in hints}
        if not shared:
            require_one_process(function.__name__)
        function(**own)

    # An option that lists nothing more would only be noise.
    if any(_is_hidden(parameter) for parameter in parameters):
        parameters.append(_HELP_ALL)
    flat.__name__ = function.__name__
    # One line a paragraph: Rich keeps the line breaks of a help text, and wraps what is longer.
    paragraphs = (function.__doc__ or "").split("\n\n")
    flat.__doc__ = "\n\n".join(" ".join(part.split()) for part in paragraphs)
    flat.__module__ = function.__module__
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _show_all(context: typer.Context, asked: bool) -> None:
    """Print the help with the options that `--help` leaves out."""
    if not asked:
        return
    for parameter in context.command.params:
        if isinstance(parameter, TyperOption):
            parameter.hidden = False
    typer.echo(context.get_help())
    raise typer.Exit


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--help-all", help="Show all options and exit.", callback=_show_all, is_eager=True
        ),
    ],
)


def _is_hidden(parameter: inspect.Parameter) -> bool:
    about_option = getattr(parameter.annotation, "__metadata__", (None,))[0]
    return bool(getattr(about_option, "hidden", False))


def flag_of(name: str, known: Option) -> str:
    """Return the flag of an option, `--round-to`."""
    return "--" + (known.flag or name.replace("_", "-"))


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _parameters(default: Any) -> Iterator[inspect.Parameter]:
    """Yield a keyword parameter for each option of a config; `default` has the defaults."""
    hints = get_type_hints(type(default), include_extras=True)
    for field in dataclasses.fields(default):
        kind, value, known = hints[field.name], getattr(default, field.name), about(field)
        if _is_config(kind):
            yield from _parameters(value)
            continue
        if known is not None:
            given = type_as_given(type_of(field, kind), known)
            kind = Annotated[given, _typer_option(field.name, kind, known)]
            # Of a list or a map Typer takes None for "not given".
            if value in ((), {}):
                value = None
            elif known.separator and value is not None:
                value = known.separator.join(map(str, value))
        elif not hasattr(kind, "__metadata__"):
            continue
        keyword = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, keyword, default=value, annotation=kind)


def _typer_option(name: str, kind: Any, known: Option) -> Any:
    flag = flag_of(name, known)
    flags = [flag, *(f"--{alias}" for alias in known.flag_aliases)]
    plain = without_none(kind)
    if plain is bool:
        off_flag = known.off_flag or f"no-{flag.removeprefix('--')}"
        flags = [f"{flag}/--{off_flag}"]
    metavar = known.metavar
    if metavar is None and is_map(plain):
        metavar = "KEY=VALUE"
    elif metavar is None and plain in (int, float):
        # Without bounds, which would leave the texts half a line; errors name them.
        metavar = "N" if plain is int else "X"
    # Open bounds are checked by the config itself: Typer has none.
    return typer.Option(
        *flags,
        help=with_flags(help_of(known)),
        min=known.minimum,
        max=known.maximum,
        metavar=metavar,
        hidden=known.advanced,
        rich_help_panel=known.panel or None,
    )


def _filled(config: type[Any], values: dict[str, Any]) -> Any:
    """Return a config whose options have these values; what is not among them keeps its default."""
    hints = get_type_hints(config)
    own: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        kind, known = hints[field.name], about(field)
        if _is_config(kind):
            own[field.name] = _filled(kind, values)
        elif field.name in values and known is None:
            own[field.name] = values[field.name]
        elif known is not None:
            value = value_as_given(field.name, kind, known, values[field.name])
            # The config's own default then counts, which Typer was not told.
            is_not_given = value is None and without_none(kind) is kind
            if not is_not_given:
                own[field.name] = value
    return config(**own)
