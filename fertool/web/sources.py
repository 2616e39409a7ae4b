"""The sources of the page under static/: templates filled, modules joined to one script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

STATIC = Path(__file__).with_name("static")
ENTRY = "main.js"
SERVICE_WORKER = "service-worker.js"
_IMPORT = re.compile(r"^import \{[^}]*\} from '\./([\w-]+\.js)';\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
_BLANK = re.compile(r"\{\{ (\w+) \}\}")


def read_source(name: str) -> str:
    """Return the text of one file under static/."""
    return (STATIC / name).read_text(encoding="utf-8")


def module_names() -> list[str]:
    """Return the names of the page's modules, each after those that it imports, main.js last."""
    found: list[str] = []
    _visit(ENTRY, found)
    return found


def _visit(name: str, found: list[str]) -> None:
    # A module that two others import must come once, since a script cannot declare a name twice.
    if name in found:
        return
    for imported in _IMPORT.findall(read_source(name)):
        _visit(imported, found)
    found.append(name)


def joined_modules() -> str:
    """Return all modules as one script: without imports, since it can import nothing from a file.

    Their names at the top level all differ, which a test holds.
    """
    parts: list[str] = []
    for name in module_names():
        text = _IMPORT.sub("", read_source(name))
        parts.append(f"// {name}\n\n{_EXPORT.sub('', text).strip()}\n")
    return "\n".join(parts)


def fill(name: str, values: Mapping[str, str]) -> str:
    """Return a template under static/ with `{{ key }}` replaced; values are not escaped here.

    Raises KeyError for a key that is missing.
    """
    # One pass: a value may hold braces itself.
    return _BLANK.sub(lambda match: values[match[1]], read_source(name))
