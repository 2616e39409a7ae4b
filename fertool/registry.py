"""Registries: the members of one kind by name, each in a file of a folder, to which anyone can add.

A member is a class or a function under the decorator of its registry:

    @CRITERIA.register("l1")
    class L1(WeightCriterion):
        \"\"\"Sum of the absolute weights of a filter.\"\"\"

A file with such a definition in the registry's folder is all that a new member of fertool needs. An
installed package adds one by an entry point of the registry's group, a script by the decorator
itself. Names and summaries are read from the source, so that help texts import no torch.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from fertool.errors import UsageError, unknown_name

_ROOT = Path(__file__).parent.parent
_DECORATOR = "register"
Definition = TypeVar("Definition")
_Definition = ast.ClassDef | ast.FunctionDef


@cache
def installed_members() -> Any:
    """Return the entry points of installed packages, of all groups, to `select` from."""
    # Imported here, since it takes a tenth of the time of a help text.
    from importlib.metadata import entry_points

    # Kept, since looking for them reads a file of every installed package. Any, since Python 3.11
    # returns another class than later ones.
    return entry_points()


@dataclass(frozen=True)
class _Source:
    """What the source of a member tells.

    `definition` is the name of its class or function in the `module`.
    """

    module: str
    definition: str
    docstring: str
    attributes: Mapping[str, ast.expr]
    options: Mapping[str, ast.expr]


class Registry:
    """The members of one kind.

    `kind` is what messages call one, an option in double backticks. `package` has the files of
    fertool's own members, `entry_point_group` is where installed packages name theirs. `base`, as
    `module:Class`, is the class whose attributes members have unless they set their own.
    """

    def __init__(self, kind: str, package: str, entry_point_group: str, base: str = "") -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._package = package
        self._base = base
        self._loaded: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[Definition], Definition]:
        """Return the decorator that makes a class or a function the member of this name.

        Raises UsageError for another definition under a name that fertool itself uses.
        """

        def add(definition: Definition) -> Definition:
            own = self._sources.get(name)
            if own is not None and own.module != getattr(definition, "__module__", None):
                raise UsageError(
                    f"{self.kind} '{name}': fertool has one of this name", "choose another name"
                )
            self._loaded[name] = definition
            return definition

        return add

    def names(self) -> list[str]:
        """Return the names of all members, sorted; imports none of them."""
        installed = installed_members().select(group=self.entry_point_group)
        return sorted({*self._sources, *self._loaded, *installed.names})

    def require(self, name: str) -> None:
        """Raise UsageError with the choices for a name that no member has."""
        known = self.names()
        if name not in known:
            raise unknown_name(self.kind, name, known)

    def load(self, name: str) -> Any:
        """Return a member, imported when it is first asked for.

        Raises UsageError for an unknown name and for a package that does not load.
        """
        if name not in self._loaded:
            self.require(name)
            self._loaded[name] = self._import(name)
        return self._loaded[name]

    def summary(self, name: str) -> str:
        """Return the first line of a member's docstring without its period."""
        source = self._sources.get(name)
        docstring = source.docstring if source else self.load(name).__doc__ or ""
        return docstring.strip().partition("\n")[0].removesuffix(".")

    def attribute(self, name: str, key: str, default: Any = None) -> Any:
        """Return a class attribute of a member, or that of the base class of all members.

        `default` where neither has it. Members of fertool are not imported for it: the attributes
        that are asked for are literals.
        """
        if key in self._base_attributes:
            default = ast.literal_eval(self._base_attributes[key])
        source = self._sources.get(name)
        if source is None:
            return getattr(self.load(name), key, default)
        if key in source.attributes:
            return ast.literal_eval(source.attributes[key])
        return default

    def having(self, key: str, value: Any) -> str | None:
        """Return the first member with this value of a class attribute, None if there is none."""
        for name in self.names():
            try:
                found = self.attribute(name, key)
            except UsageError:
                # A package that does not load must not break the others.
                continue
            if found == value:
                return name
        return None

    def options(self, name: str) -> dict[str, Any]:
        """Return the options that a member has as fields of its dataclass, and their defaults.

        Members of fertool are not imported for it: their defaults are literals.
        """
        source = self._sources.get(name)
        if source is not None:
            return {key: ast.literal_eval(value) for key, value in source.options.items()}
        member = self.load(name)
        options: dict[str, Any] = {}
        # A package may bring a class or a function that is no dataclass.
        if not dataclasses.is_dataclass(member):
            return options
        for field in dataclasses.fields(member):
            if field.default is not dataclasses.MISSING:
                options[field.name] = field.default
        return options

    def defaults(self, option: str) -> Mapping[str, Any]:
        """Return the default of one option by the members that have it; read when first needed."""
        return _OptionDefaults(self, option)

    @cached_property
    def _sources(self) -> dict[str, _Source]:
        """The members in the folder, by name."""
        folder = _path_of(self._package)
        sources = {}
        for path in sorted(folder.glob("*.py")):
            module = f"{self._package}.{path.stem}"
            for node in _definitions(path):
                for name in _registered_names(node):
                    sources[name] = _read_source(module, node)
        return sources

    @cached_property
    def _base_attributes(self) -> Mapping[str, ast.expr]:
        """The attributes of the base class, none where there is no base class."""
        module, _, name = self._base.partition(":")
        if not module:
            return {}
        for node in _definitions(_path_of(module).with_suffix(".py")):
            if node.name == name:
                return _read_source(module, node).attributes
        raise AssertionError(f"there is no {self._base}")

    def _import(self, name: str) -> Any:
        source = self._sources.get(name)
        if source is not None:
            return getattr(importlib.import_module(source.module), source.definition)
        (point, *_) = installed_members().select(group=self.entry_point_group, name=name)
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.kind} '{name}': its package does not load ({error})",
                f"reinstall what provides {point.value}",
            ) from None


class _OptionDefaults(Mapping[str, Any]):
    """The default of one option by the members of a registry that have it."""

    def __init__(self, registry: Registry, option: str) -> None:
        self._registry = registry
        self._option = option

    def __getitem__(self, name: str) -> Any:
        return self._registry.options(name)[self._option]

    def __iter__(self) -> Iterator[str]:
        for name in self._registry.names():
            if self._option in self._registry.options(name):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _path_of(module: str) -> Path:
    """Return the path of a package, or of a module without its suffix."""
    return _ROOT.joinpath(*module.split("."))


def _definitions(path: Path) -> Iterator[_Definition]:
    """Yield the classes and functions at the top of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, _Definition):
            yield node


def _registered_names(node: _Definition) -> list[str]:
    """Return the names in the decorators `@….register("name")` of a definition."""
    names = []
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(func=ast.Attribute(attr=attribute), args=[ast.Constant(value=name)]):
                if attribute == _DECORATOR:
                    names.append(str(name))
    return names


def _read_source(module: str, node: _Definition) -> _Source:
    attributes: dict[str, ast.expr] = {}
    options: dict[str, ast.expr] = {}
    for statement in node.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=key)], value=value):
                attributes[key] = value
            case ast.AnnAssign(target=ast.Name(id=key), value=ast.expr() as value):
                # As a dataclass has it: a class variable is no field.
                if ast.unparse(statement.annotation).startswith("ClassVar"):
                    attributes[key] = value
                else:
                    options[key] = value
    return _Source(module, node.name, ast.get_docstring(node) or "", attributes, options)


ARCHITECTURES = Registry("architecture", "fertool.models.architectures", "fertool.architectures")
READERS = Registry("``format``", "fertool.data.readers", "fertool.readers")
CRITERIA = Registry("``criterion``", "fertool.pruning.criteria", "fertool.criteria")
SCHEDULES = Registry(
    "``schedule``",
    "fertool.pruning.schedules",
    "fertool.schedules",
    base="fertool.pruning.schedule:Schedule",
)
DISTILLATION_METHODS = Registry(
    "``method``",
    "fertool.distillation.methods",
    "fertool.distillation_methods",
    base="fertool.distillation.method:DistillationMethod",
)
ALLOCATIONS = Registry(
    "``allocation``",
    "fertool.quant.allocations",
    "fertool.allocations",
    base="fertool.quant.allocation:Allocation",
)
RUNTIMES = Registry("``runtime``", "fertool.runtime.runtimes", "fertool.runtimes")
FORMATS = Registry("``format``", "fertool.formats", "fertool.formats")
DETECTORS = Registry("``detector``", "fertool.faces.detectors", "fertool.detectors")
