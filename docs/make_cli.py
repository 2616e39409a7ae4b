"""Print docs/cli.md: the help of every command, at a fixed width and without colour."""

from __future__ import annotations

import contextlib
import io
import os

os.environ.update(
    TERMINAL_WIDTH="100",
    COLUMNS="100",
    NO_COLOR="1",
    TERM="dumb",
    _TYPER_FORCE_DISABLE_TERMINAL="1",
)

from fertool.cli.app import app, run


def main() -> None:
    """Write the page to stdout."""
    print("# The command line\n\nMade by `make docs` from the programs' own help; do not edit.\n")
    commands = [command.name or "" for command in app.registered_commands]
    pages = [[], *([name] for name in commands), ["data", "info"], ["data", "synth"]]
    for page in pages:
        print(f"## {' '.join(['fertool', *page])}\n\n```text\n{help_of(page)}\n```\n")


def _has_all(page: list[str]) -> bool:
    """Return whether a command has options that its short help leaves out."""
    names = {command.name: command for command in app.registered_commands}
    if not page or page[0] not in names:
        return False
    callback = names[page[0]].callback
    return callback is not None and "help_all" in callback.__annotations__


def help_of(page: list[str]) -> str:
    """Return the help of one command, without trailing blanks."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        run([*page, "--help-all" if _has_all(page) else "--help"])
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


if __name__ == "__main__":
    main()
