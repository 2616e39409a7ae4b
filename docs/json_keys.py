"""The keys of a command's JSON as tables, and their JSON Schemas, from the types of the results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tables import table

from fertool.cli.flags import with_flags
from fertool.results import ModelSummary
from fertool.results.schema import RESULTS, json_schema

SCHEMAS = Path(__file__).parent / "schemas"
_HEADS = ("key", "type", "unit", "meaning")
_TITLES = {
    "bench-board": "`result.json` of a board",
    "export-bundle": "With `--bundle`",
    "prune-dry-run": "With `--dry-run`",
    "quantize-dry-run": "With `--dry-run`",
    "train-teacher-history": "`OUT.history.json`",
    "train-teacher-sweep": "`OUT.seeds.json` and `OUT.grid.json`",
}
"""What stands above the tables of a page behind the first one."""
_TYPES = {"number": "number", "integer": "integer", "string": "text", "boolean": "boolean"}


def write_schemas(folder: Path) -> None:
    """Write the JSON Schema of every result."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in RESULTS.items():
        text = with_flags(json.dumps(json_schema(kind), indent=2))
        (folder / f"{name}.json").write_text(f"{text}\n")


def json_section(page: str) -> str:
    """Return the tables of all JSON that a command prints and writes; nothing without any."""
    parts = []
    for name in RESULTS:
        if name == page:
            parts.append(_key_table(name))
        elif name in _TITLES and name.startswith(f"{page}-"):
            parts.append(f"### {_TITLES[name]}\n\n{_key_table(name)}")
    return "\n\n".join(parts)


def _key_table(name: str) -> str:
    kind = RESULTS[name]
    schema = json_schema(kind)
    definitions = schema["$defs"]
    rows: list[tuple[str, str, str, str]] = []
    known: set[str] = set()
    if issubclass(kind, ModelSummary) and name != "show":
        rows.append(("all keys of [`show`](show.md#json)", "", "", "about the file it wrote"))
        known = set(json_schema(ModelSummary)["$defs"]["ModelSummary"]["properties"])
    for key, part in _definition(schema, definitions)["properties"].items():
        if key not in known:
            rows += _rows(key, part, definitions)
    link = f"Its [JSON Schema](../schemas/{name}.json) has the bounds of each key."
    return f"{table(_HEADS, [_escaped(row) for row in rows])}\n\n{link}"


def _rows(key: str, part: Any, definitions: Any) -> Iterator[tuple[str, str, str, str]]:
    """Yield the row of a key, and those of the keys below it that have a meaning of their own."""
    path, element = _innermost(key, part)
    below = _definition(element, definitions)["properties"] if "$ref" in element else {}
    described = {name: entry for name, entry in below.items() if "description" in entry}
    kind = _type_text(part, definitions)
    if below and not described:
        # Types that other parts of the program have, too: their names say what they are.
        kind += f": {', '.join(f'`{name}`' for name in below)}"
    yield f"`{key}`", kind, _unit(part), with_flags(part.get("description", ""))
    for name, entry in described.items():
        yield from _rows(f"{path}.{name}", entry, definitions)


def _innermost(path: str, part: Any) -> tuple[str, Any]:
    """Return the path and the schema of what lists and maps of a key hold in the end."""
    if "anyOf" in part:
        # The other one is null.
        return _innermost(path, part["anyOf"][0])
    # A pair has `items: false` behind the types of its two values.
    if isinstance(part.get("items"), Mapping):
        return _innermost(f"{path}[]", part["items"])
    if isinstance(part.get("additionalProperties"), Mapping):
        return _innermost(f"{path}.*", part["additionalProperties"])
    return path, part


def _type_text(part: Any, definitions: Any) -> str:
    if "anyOf" in part:
        types = [_type_text(option, definitions) for option in part["anyOf"]]
        return " or ".join(dict.fromkeys(types))
    if "enum" in part:
        return ", ".join(f"`{choice}`" for choice in part["enum"])
    if "$ref" in part or part.get("type") == "object":
        return "object"
    if "prefixItems" in part:
        return "pair" if len(part["prefixItems"]) == 2 else "list"
    if "items" in part:
        return f"list of {_plural(_type_text(part['items'], definitions))}"
    kind: str = part.get("type", "any")
    return _TYPES.get(kind, kind)


def _plural(kind: str) -> str:
    first, *rest = kind.split(" ")
    return " ".join([f"{first}s", *rest])


def _unit(part: Any) -> str:
    """Return the unit of a number, or of the numbers in a list."""
    if "unit" in part:
        return str(part["unit"])
    inner = [part["items"]] if isinstance(part.get("items"), Mapping) else part.get("anyOf", [])
    units = [_unit(option) for option in inner]
    return next(filter(None, units), "")


def _definition(part: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    return definitions[part["$ref"].rpartition("/")[2]]


def _escaped(row: tuple[str, ...]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]
