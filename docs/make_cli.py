"""Write the reference pages of the commands, one for each, into docs/commands/; see `make docs`.

A page is its template in docs/templates/commands/, filled with what the program tells of itself:
purpose, usage, examples, options, and the keys of its JSON, whose schemas go into docs/schemas/.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jinja2
from json_keys import json_section, write_schemas
from tables import table
from typer.main import get_command

from fertool.cli.app import app

DOCS = Path(__file__).parent
TEMPLATES = DOCS / "templates" / "commands"
GENERAL = "General"
"""The panel of options that name none."""
SHARED = (GENERAL, "Model", "Data", "Training", "Augmentation", "Teacher logits", "Output")
"""Panels that several commands have; a command's own come before them."""


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command."""

    names: str
    values: str
    default: str
    help: str
    panel: str
    is_argument: bool
    required: bool


def main() -> None:
    """Write all pages into commands/ and schemas/ of the folder that is given, docs/ by default."""
    docs = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    write_schemas(docs / "schemas")
    folder = docs / "commands"
    folder.mkdir(parents=True, exist_ok=True)
    for name, command in commands().items():
        page = folder / f"{name.replace(' ', '-')}.md"
        page.write_text(render(name, command) + "\n")


def commands() -> dict[str, Any]:
    """Return all commands as the command line has them, by name."""
    root = get_command(app)
    found: dict[str, Any] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        members = getattr(command, "commands", None)
        if members is None:
            found[name] = command
            continue
        for member, inner in members.items():
            found[f"{name} {member}"] = inner
    return found


def render(name: str, command: Any) -> str:
    """Return the page of one command."""
    purpose, details, examples = _docstring(command.callback)
    parameters = list(_parameters(command))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
    )
    # A command without a template of its own has what the program tells of it.
    template = environment.select_template([f"{name.replace(' ', '-')}.md", "_page.md"])
    return template.render(
        name=name,
        purpose=purpose,
        details=details,
        usage=_usage(name, parameters),
        examples="\n".join(examples),
        options=_options(parameters),
        json_keys=json_section(name.replace(" ", "-")),
    )


def _docstring(function: Callable[..., Any]) -> tuple[str, str, list[str]]:
    """Return the purpose, what else the docstring tells, and its examples."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    texts, examples = [], []
    for paragraph in paragraphs:
        line = " ".join(paragraph.split())
        if line.startswith("Example: "):
            examples.append(line.removeprefix("Example: "))
        else:
            texts.append(line)
    return texts[0], "\n\n".join(texts[1:]), examples


def _parameters(command: Any) -> Iterator[Parameter]:
    """Yield arguments and options; their types are those of the function's signature."""
    signature = inspect.signature(command.callback).parameters
    for known in command.params:
        # Options that the short help leaves out are hidden there, not here.
        if known.name not in signature:
            continue
        is_argument = known.param_type_name == "argument"
        flags = [f"`{flag}`" for flag in [*known.opts, *known.secondary_opts]]
        yield Parameter(
            names=f"`{known.metavar}`" if is_argument else ", ".join(flags),
            values=_values(signature[known.name].annotation, known),
            default="*required*" if known.required else _default(known.default),
            help=" ".join((known.help or "").split()),
            panel=known.rich_help_panel or GENERAL,
            is_argument=is_argument,
            required=known.required,
        )


_TYPES = {int: "integer", float: "number", str: "text", Path: "path", bool: ""}


def _values(kind: Any, known: Any) -> str:
    """Return what an option takes: choices, or a type and its bounds."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _values(get_args(kind)[0], known)
    if origin in (Union, types.UnionType):
        members = [part for part in get_args(kind) if part is not types.NoneType]
        return _values(members[0], known)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if origin in (list, tuple):
        return f"{_values(get_args(kind)[0], known)}, repeatable"
    words = [_TYPES.get(kind, kind.__name__)]
    if known.metavar and kind not in (int, float):
        words = [f"`{known.metavar}`"]
    words.append(_bounds(known.min, known.max))
    return " ".join(word for word in words if word)


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"≥ {_number(low)}"
    return "" if high is None else f"≤ {_number(high)}"


def _number(value: float) -> str:
    # With all digits: a bound of 2^31 is no 2.14748e+09.
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "*required*"
    if value is None or value is False or value == ():
        return ""
    return "on" if value is True else f"`{value}`"


def _usage(name: str, parameters: list[Parameter]) -> str:
    words = ["fertool", name]
    words += [p.names.strip("`") for p in parameters if p.is_argument]
    required = [p for p in parameters if p.required and not p.is_argument]
    words += [f"{p.names.split(',')[0].strip('`')} {p.values.upper()}" for p in required]
    return " ".join([*words, "[options]"])


def _options(parameters: list[Parameter]) -> str:
    """Return a table of options for each panel, the command's own panels first."""
    panels: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        # Arguments are described under *Inputs*.
        if not parameter.is_argument:
            panels.setdefault(parameter.panel, []).append(parameter)
    own = [panel for panel in panels if panel not in SHARED]
    shared = [panel for panel in SHARED if panel in panels]
    parts = []
    for panel in own + shared:
        rows = []
        for member in panels[panel]:
            cells = (member.names, member.values, member.default, member.help)
            rows.append([cell.replace("|", "\\|") for cell in cells])
        heads = ("option", "values", "default", "meaning")
        parts.append(f"### {panel} options\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
