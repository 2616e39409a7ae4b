"""Commands that are imported and built when they are asked for.

Reading the options of all of them takes longer than `fertool --help` may.
"""

from __future__ import annotations

import ast
import importlib
from collections import UserDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from fertool.cli.groups import with_options


class Entry(NamedTuple):
    """A command in the table of its group.

    `function` is its place in `fertool.cli`, "prune.prune", or that of a group's Typer; several
    processes are refused unless they can share its work.
    """

    function: str
    panel: str | None = None
    is_shared: bool = False

    def load(self) -> Any:
        """Import the function, or the Typer of a group."""
        module, _, attribute = self.function.partition(".")
        return getattr(importlib.import_module(f"fertool.cli.{module}"), attribute)

    def read_help(self) -> str | None:
        """Read the docstring of the function, or that of the module of a group, in the source."""
        module, _, attribute = self.function.partition(".")
        # To import the modules, with all their options, would take as long as everything else.
        source = ast.parse(Path(__file__).with_name(f"{module}.py").read_bytes())
        for node in source.body:
            if isinstance(node, ast.FunctionDef) and node.name == attribute:
                return ast.get_docstring(node)
        return ast.get_docstring(source)


class CommandGroup(TyperGroup):
    """A group whose commands stand in a `table`, by name and in the order of the help."""

    table: ClassVar[Mapping[str, Entry]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.table)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, which needs the summaries of the commands only."""
        commands = self.commands
        # Typer lists what stands here.
        self.commands = {name: _summary(name, entry) for name, entry in self.table.items()}
        super().format_help(ctx, formatter)
        self.commands = commands


class _Commands(UserDict[str, Any]):
    """The commands of a table."""

    def __getitem__(self, name: str) -> Any:
        found = self.data[name]
        if isinstance(found, Entry):
            found = self.data[name] = _build(name, found)
        return found


def _build(name: str, entry: Entry) -> Any:
    """Return a command with all its options."""
    found = entry.load()
    if isinstance(found, typer.Typer):
        return get_command(found)
    # Typer makes commands of functions only as parts of an application.
    single = typer.Typer(add_completion=False)
    function = with_options(found, shared=entry.is_shared)
    single.command(name, rich_help_panel=entry.panel, no_args_is_help=True)(function)
    return get_command(single)


def _summary(name: str, entry: Entry) -> TyperCommand:
    """Return a command with its help and without options."""
    return TyperCommand(name, help=entry.read_help(), rich_help_panel=entry.panel)
