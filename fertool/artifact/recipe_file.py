"""Recipes as YAML: a map of commands to options, read without the surprises of YAML.

A value is the text that stands there, as on a command line: the option alone says what kind it is,
so that `yes`, `1:30` and `2001-12-14` are neither numbers nor dates. Tags make nothing, a key
stands once, and what aliases repeat counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from fertool.artifact.input_files import read_text
from fertool.errors import UsageError
from fertool.strict_json import shown

MAX_BYTES = 256 << 10
_MAX_DEPTH = 8
_MAX_VALUES = 10_000
_MAX_CHARACTERS = 4096
_NOTHING = ("", "~", "null", "Null", "NULL")
_HINT = "see recipes/ for examples"
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Preset:
    """The value of one option, a text or a list of them, and the line that it stands in."""

    value: str | list[str]
    line: int


Presets = Mapping[str, Mapping[str, Preset]]
"""By command and option."""


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without kinds of plain scalars but `<<`.

    It composes nodes and constructs nothing, so that no file can make Python objects.
    """


_Loader.yaml_implicit_resolvers = {}

_Loader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"<<"), ["<"])


def read_presets(path: Path) -> Presets:
    """Return a recipe's options by command.

    Raises FertoolError for what is no readable file, UsageError, naming the line, for what is no
    recipe.
    """
    text = read_text(path, MAX_BYTES)
    try:
        root = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        raise UsageError(f"{path}{place}: not valid YAML ({problem})", _HINT) from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply for a recipe", _HINT) from None
    except (OverflowError, ValueError):  # PyYAML makes a sign of every number behind \U
        raise UsageError(
            f"{path}: not valid YAML (an escape that stands for no sign)", _HINT
        ) from None
    return _Reader(path).commands(root)


class _Reader:
    """Turns the nodes of one file into presets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._values = 0

    def commands(self, root: Node | None) -> Presets:
        """Return the whole file."""
        if not isinstance(root, MappingNode):
            raise UsageError(
                f"{self._path}: a recipe maps commands to their options",
                "for example  distill: {epochs: 30}",
            )
        return {name: self._options(name, node) for name, node in self._pairs(root, 1)}

    def _options(self, command: str, node: Node) -> dict[str, Preset]:
        if not isinstance(node, MappingNode):
            raise self._refused(node, f"{command} has no options, but {_described(node)}")
        options = {}
        for name, value in self._pairs(node, 2):
            options[name] = Preset(self._value(name, value, 3), _line(value))
        return options

    def _value(self, name: str, node: Node, depth: int) -> str | list[str]:
        self._count(node, depth)
        if isinstance(node, SequenceNode):
            return [self._scalar(name, entry) for entry in node.value]
        return self._scalar(name, node)

    def _scalar(self, name: str, node: Node) -> str:
        self._count(node, 0)
        if not isinstance(node, ScalarNode):
            raise self._refused(
                node, f"{name} is {_described(node)}, expected a value or a list of values"
            )
        if node.tag != f"{_TAG}str":
            raise self._refused(node, f"{name} has the tag {shown(node.tag)}, recipes have none")
        text = str(node.value)
        if len(text) > _MAX_CHARACTERS:
            raise self._refused(
                node, f"{name} has {len(text):,} characters, more than {_MAX_CHARACTERS:,}"
            )
        if node.style is None and text in _NOTHING:
            raise self._refused(node, f"{name} has no value")
        return text

    def _pairs(self, node: MappingNode, depth: int) -> Iterator[tuple[str, Node]]:
        """Yield names and values: those merged by `<<` first, unless the map has the name too."""
        self._count(node, depth)
        if node.tag != f"{_TAG}map":
            raise self._refused(node, f"the tag {shown(node.tag)}, recipes have none")
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            self._count(key, depth)
            if key.tag == f"{_TAG}merge":
                # Of several maps the first one that has a name counts.
                merged = {**self._merged(value, depth), **merged}
                continue
            name = self._key(key)
            if name in own:
                raise self._refused(key, f"{shown(name)} stands there twice")
            own[name] = value
        yield from {**merged, **own}.items()

    def _merged(self, value: Node, depth: int) -> dict[str, Node]:
        """Return the names and values that `<<` merges: those of a map, or of a list of maps."""
        sources = [value]
        if isinstance(value, SequenceNode):
            sources = value.value
        merged: dict[str, Node] = {}
        for source in sources:
            if not isinstance(source, MappingNode):
                raise self._refused(value, f"<< merges maps, not {_described(source)}")
            merged = {**dict(self._pairs(source, depth + 1)), **merged}
        return merged

    def _key(self, node: Node) -> str:
        if (
            not isinstance(node, ScalarNode)
            or node.tag != f"{_TAG}str"
            or len(node.value) > _MAX_CHARACTERS
        ):
            raise self._refused(
                node, f"the name of a command or option is {_described(node)}, not text"
            )
        return str(node.value)

    def _count(self, node: Node, depth: int) -> None:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise self._refused(node, f"more than {_MAX_VALUES:,} values, aliases written out")
        if depth > _MAX_DEPTH:
            raise self._refused(node, "nested too deeply for a recipe")

    def _refused(self, node: Node, problem: str) -> UsageError:
        return UsageError(f"{self._path}:{_line(node)}: {problem}", _HINT)


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _described(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a map"
    if isinstance(node, SequenceNode):
        return "a list"
    return shown(str(node.value)) if node.value else "nothing"
