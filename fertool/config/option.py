"""An option, written down once: a field of a frozen dataclass, with default, bounds and help.

The flags of the command line, the keys of recipes, the arguments of the Python functions, the
provenance and the reference page are read from these fields. A config may hold other configs: their
options count as its own, so that all names within one config differ.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fertool.errors import UsageError, unknown_name
from fertool.registry import Registry

_KEY = "option"
"""Of the metadata of a field."""
Config = TypeVar("Config")


@dataclass(frozen=True)
class Option:
    """What is known of an option beyond its name, its type and its default.

    `minimum` and `maximum` are allowed values, `above` and `below` are not. `panel` is the heading
    of the help that the option stands under; `advanced` options are in the full help only. `flag`
    is the flag's name where that is not the field's, `off_flag` that of the flag that switches a
    bool off where it is not `no-` and the same; `aliases` are further names in Python,
    `flag_aliases` further flags. `metavar` stands for the value in the help; `separator` stands
    between the values of a list that is given as one text. The value of an option with a `registry`
    is the name of one of its members, or the default. `applies_to` is for an option of some
    variants of a command only: the field that chooses the variant; `defaults` are the values there,
    by variant, where the option is None.
    """

    help: str
    panel: str = ""
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    flag: str = ""
    off_flag: str = ""
    aliases: tuple[str, ...] = ()
    flag_aliases: tuple[str, ...] = ()
    metavar: str | None = None
    separator: str = ""
    registry: Registry | None = None
    advanced: bool = False
    applies_to: str = ""
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def option(default: Any, help: str, **about: Any) -> Any:
    """Return the dataclass field of an option; `about` are further fields of `Option`.

    A `default` that can be changed in place, such as a dict, is given as
    `dataclasses.field(default_factory=...)`.
    """
    metadata = {_KEY: Option(help, **about)}
    if isinstance(default, dataclasses.Field):
        return dataclasses.field(default_factory=default.default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def about(field: dataclasses.Field[Any]) -> Option | None:
    """Return what is known of an option, None for a field that is none."""
    found: Option | None = field.metadata.get(_KEY)
    return found


def changed(config: type[Any], name: str, default: Any, **about: Any) -> Any:
    """Return the field of an option of `config` for another one that has another default.

    `about` are the fields of `Option` that are different there too.
    """
    option_of_base = _field_of(config, name).metadata[_KEY]
    changed_option = dataclasses.replace(option_of_base, **about)
    return dataclasses.field(default=default, metadata={_KEY: changed_option})


def advanced(config: type[Any], name: str) -> Any:
    """Return the field of an option of `config` for one that has it in its full help only."""
    return changed(config, name, _field_of(config, name).default, advanced=True)


def _field_of(config: type[Any], name: str) -> dataclasses.Field[Any]:
    for field in dataclasses.fields(config):
        if field.name == name:
            return field
    raise AssertionError(f"{config.__name__} has no option {name}")


def default_text(registry: Registry, member: str, name: str) -> str:
    """Return the default of an option that a member of a registry has, as help texts show it."""
    return f"{registry.options(member)[name]:g}"


def values_of(config: Any) -> dict[str, Any]:
    """Return the values of all options of a config, those of the configs that it holds included."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            values.update(values_of(value))
        elif about(field) is not None:
            values[field.name] = value
    return values


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a config in which these options have other values.

    Names that it does not have are ignored.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = with_values(value, values)
            if inner != value:
                changes[field.name] = inner
        elif field.name in values:
            changes[field.name] = values[field.name]
    # The same object where nothing changes, which needs no second check.
    if not changes:
        return config
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def check(config: Any) -> None:
    """Raise UsageError for the first option whose value is out of bounds or none of its choices."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        known = about(field)
        value = getattr(config, field.name)
        # None stands for a default, which depends on other options.
        if known is not None and value is not None:
            _check_value(field, known, value, hints[field.name])


def _check_value(field: dataclasses.Field[Any], known: Option, value: Any, hint: Any) -> None:
    choices = choices_of(hint)
    if choices and value not in choices:
        raise unknown_name(f"``{field.name}``", str(value), choices)
    # The default of such an option need not be a member: `auto` is none.
    if known.registry is not None and value != field.default:
        known.registry.require(value)
    if isinstance(value, int | float) and not _is_within(value, known):
        raise UsageError(
            f"``{field.name}={value}``: must be {_limits(known)}", f"{field.name}: {known.help}"
        )


def configured(config: Config, options: Mapping[str, Any], *others: Any) -> tuple[Any, ...]:
    """Return the config, and the `others`, with these options by name or alias in their place.

    Raises UsageError for a name that none of them has.
    """
    configs = (config, *others)
    known: dict[str, str] = {}
    kinds: dict[str, Any] = {}
    for each in configs:
        known.update(_names_by_alias(each))
        kinds.update(types_of(each))
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise unknown_name("option", name, known)
        field_name = known[name]
        values[field_name] = typed(kinds[field_name], value)
    return tuple(with_values(each, values) for each in configs)


def _names_by_alias(config: Any) -> dict[str, str]:
    """Return the fields of all options of a config by their names and aliases."""
    names: dict[str, str] = {}
    for field in dataclasses.fields(config):
        known = about(field)
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            names.update(_names_by_alias(value))
        elif known is not None:
            names.update(dict.fromkeys((field.name, *known.aliases), field.name))
    return names


def require_applicable(config: Any) -> None:
    """Raise UsageError for an option that is given and that the chosen variant does not have."""
    for field in dataclasses.fields(config):
        known = about(field)
        value = getattr(config, field.name)
        if known is None or not known.applies_to or value is None:
            continue
        chosen = getattr(config, known.applies_to)
        if chosen not in known.defaults:
            having = " or ".join(known.defaults)
            raise UsageError(
                f"``{field.name}={value}``: ``{known.applies_to}={chosen}`` has none",
                f"leave it out, or add ``{known.applies_to}={having}``",
            )


def applicable(config: Any) -> dict[str, Any]:
    """Return the options of the chosen variant that not all variants have.

    The variant's defaults stand for None.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        known = about(field)
        value = getattr(config, field.name)
        if known is None or not known.applies_to:
            continue
        chosen = getattr(config, known.applies_to)
        if chosen in known.defaults:
            values[field.name] = known.defaults[chosen] if value is None else value
    return values


def choices_of(kind: Any) -> tuple[Any, ...]:
    """Return the values of a Literal type, also of one that may be None; none for other types."""
    for part in parts_of(kind):
        if get_origin(part) is Literal:
            return get_args(part)
    return ()


def names_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """Return the values of an option with a registry: its members, before them another default."""
    registry: Registry | None = field.metadata[_KEY].registry
    if registry is None:
        return ()
    names = registry.names()
    default: Any = field.default
    if default is None or default in names:
        return tuple(names)
    return (default, *names)


def type_of(field: dataclasses.Field[Any], hint: Any) -> Any:
    """Return the type of an option annotated as `hint`: with a registry, a Literal of names."""
    names = names_of(field)
    if not names:
        return hint
    choices: Any = Literal[names]
    return choices | None if field.default is None else choices


def help_of(known: Option) -> str:
    """Return the help of an option, with the summaries of the members of its registry."""
    if known.registry is None:
        return known.help
    summaries = []
    for name in known.registry.names():
        summaries.append(f"{name}: {_as_clause(known.registry.summary(name))}")
    return f"{known.help} {'; '.join(summaries)}."


def _as_clause(sentence: str) -> str:
    """Return a sentence with a small first letter, unless its first word has further capitals."""
    first_word = sentence.partition(" ")[0]
    # KL and L1 are names, and stay as they are.
    if not first_word[1:].islower():
        return sentence
    return sentence[0].lower() + sentence[1:]


def types_of(config: Any) -> dict[str, Any]:
    """Return the types of all options of a config, those of the configs that it holds included."""
    hints = get_type_hints(type(config))
    types_by_name: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            types_by_name.update(types_of(value))
        elif about(field) is not None:
            types_by_name[field.name] = type_of(field, hints[field.name])
    return types_by_name


def is_scalar(kind: Any) -> bool:
    """Return whether a type has numbers, switches or choices as values, and maybe None."""
    return bool(choices_of(kind)) or any(part in (bool, int, float) for part in parts_of(kind))


def typed(kind: Any, value: Any) -> Any:
    """Return a value as the type has it: text as a path, a whole number as a float, one as a list.

    So an option that is given in Python is recorded like the same one of the command line.
    """
    parts = parts_of(kind)
    is_list = any(get_origin(part) is tuple for part in parts)
    if is_list and isinstance(value, str | int | float):
        return (value,)
    if isinstance(value, str) and Path in parts:
        return Path(value)
    if type(value) is int and float in parts and int not in parts:
        return float(value)
    return value


def parts_of(kind: Any) -> tuple[Any, ...]:
    """Return the types that a union is made of, for another type itself alone."""
    # `Optional[int]` and `int | None` are two classes in Python 3.11.
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)
    return (kind,)


def _is_within(value: float, known: Option) -> bool:
    """Return whether a number is finite and within the bounds of an option."""
    if not math.isfinite(value):
        return False
    bounds = (
        (known.minimum, operator.ge),
        (known.maximum, operator.le),
        (known.above, operator.gt),
        (known.below, operator.lt),
    )
    for bound, holds in bounds:
        if bound is None:
            continue
        if not holds(value, bound):
            return False
    return True


def _limits(known: Option) -> str:
    limits = []
    if known.minimum is not None:
        limits.append(f"{known.minimum:g} or more")
    if known.above is not None:
        limits.append(f"above {known.above:g}")
    if known.below is not None:
        limits.append(f"below {known.below:g}")
    if known.maximum is not None:
        limits.append(f"at most {known.maximum:g}")
    return " and ".join(limits) or "a finite number"
