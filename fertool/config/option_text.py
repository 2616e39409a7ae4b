"""The values of options as text: on a command line, in a recipe, in a grid."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fertool.config.option import Option, choices_of, parts_of
from fertool.errors import UsageError

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_value(kind: Any, text: str) -> bool | int | float | str:
    """Return the value of a scalar type that a text has; raises ValueError for other text."""
    if choices_of(kind):
        return text
    parts = parts_of(kind)
    # First, since a bool is an int in Python.
    if bool in parts:
        return _parse_switch(text)
    number: type[int] | type[float] = int if int in parts else float
    try:
        return number(text)
    except ValueError:
        raise ValueError("not a whole number" if number is int else "not a number") from None


def _parse_switch(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("not true or false")


def type_as_given(kind: Any, known: Option) -> Any:
    """Return the type that a command line reads an option as.

    Lists, maps and budgets are given as text.
    """
    plain = without_none(kind)
    if _is_list(plain) and known.separator:
        return str | None
    if _is_list(plain) or is_map(plain):
        return list[str] | None
    # A number or a text with a unit: the config reads it, and names what is wrong.
    if get_origin(plain) in (Union, UnionType):
        return str | None
    return kind


def value_as_given(name: str, kind: Any, known: Option, given: Any) -> Any:
    """Return the value of an option that was read as `type_as_given`.

    Raises UsageError for text of another form.
    """
    plain = without_none(kind)
    # Not given: the config's own default counts.
    if given is None:
        return None
    if is_map(plain):
        return _pairs(_written(name, known), given)
    if not _is_list(plain):
        return given
    if not known.separator:
        return tuple(given)
    parts = [part.strip() for part in given.split(known.separator)]
    try:
        return tuple(get_args(plain)[0](part) for part in parts)
    except ValueError:
        raise UsageError(
            f"``{_written(name, known)}={given}``: not numbers",
            f"one value, or several with '{known.separator}' between",
        ) from None


def _pairs(name: str, texts: list[str]) -> dict[str, str]:
    """Return `KEY=VALUE` texts as a dict; raises UsageError for others."""
    parsed = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UsageError(
                f"``{name}={text}``: not KEY=VALUE", f"for example ``{name}=width_mult=0.5``"
            )
        parsed[key] = value
    return parsed


def _written(name: str, known: Option) -> str:
    """Return the name that an error gives an option: that of its flag, where this is another."""
    return known.flag.replace("-", "_") or name


def without_none(kind: Any) -> Any:
    """Return a type without the None that an option may be."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    rest = tuple(part for part in get_args(kind) if part is not NoneType)
    # Of the one type that is left this is the type itself.
    return Union[rest]  # noqa: UP007


def is_map(kind: Any) -> bool:
    """Return whether the values of a type are maps, given as `KEY=VALUE`."""
    return get_origin(kind) is Mapping


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple
