"""The one reader of JSON that comes out of a file: bounded, strict, and checked against a type.

A kind of JSON is described by a frozen dataclass whose fields carry their bounds (`Annotated[int, msgspec.Meta(ge=1)]`)
and whose `__post_init__` raises ValueError for fields that do not fit each other. What is wrong is said in plain words,
with the path of the key and the value that stands there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from fertool.errors import FertoolError

T = TypeVar("T")

MAX_DEPTH = 32
"""Lists and maps inside each other; what commands write has 6."""
_INT_LIMIT = 2**63
_SHOWN = 40
"""Characters of a wrong value that an error shows."""
_LISTED = 5
"""Names that an error lists."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
NotNegative = Annotated[float, Meta(ge=0, le=1e30)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class WrongContentError(ValueError):
    """What is wrong with a text or a value, without the file's name."""


@contextmanager
def refusing(where: str, says: str, hint: str) -> Iterator[None]:
    """Turn a WrongContentError inside the block into a FertoolError: `where`: `says`, if anything: what is wrong."""
    try:
        yield
    except WrongContentError as error:
        raise FertoolError(": ".join(filter(None, (where, says, str(error)))), hint) from None


def parse_json(text: str | bytes, *, file_names: bool = False) -> Any:
    """Return the value of a JSON text.

    Raises WrongContentError for what is no JSON (NaN and infinity are none), and for keys that stand twice, integers
    beyond 64 bits, floats beyond double, more than `MAX_DEPTH` levels, and halves of surrogate pairs. These are taken
    with `file_names`: they stand for bytes of names that are not UTF-8.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except WrongContentError:
        raise
    except UnicodeDecodeError:
        raise WrongContentError("the text is not UTF-8") from None
    except RecursionError:
        raise WrongContentError(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise WrongContentError(f"not JSON ({error})") from None
    _require_plain(value, file_names=file_names)
    return value


def as_type(value: Any, kind: type[T], *, known_only: bool = False) -> T:
    """Return a parsed JSON value as an instance of `kind`.

    Raises WrongContentError that names the first key of a wrong type or out of its bounds, with its value; where
    `known_only`, also for keys that `kind` does not have.
    """
    try:
        typed = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise WrongContentError(_in_words(error, value, kind)) from None
    except FertoolError as error:
        raise WrongContentError(error.message) from None
    except UnicodeEncodeError as error:
        raise WrongContentError(
            f"the text {shown(error.object)} has half of a surrogate pair"
        ) from None
    if known_only:
        unknown = list(_unknown_keys(value, msgspec.to_builtins(typed), ""))
        if unknown:
            raise WrongContentError(f"unknown keys: {listed(unknown)}")
    return typed


def read_json(
    text: str | bytes, kind: type[T], where: str, says: str, hint: str, *, known_only: bool = False
) -> T:
    """Return a JSON text as an instance of `kind`; raises FertoolError: `where`: `says`: what is wrong."""
    with refusing(where, says, hint):
        return as_type(parse_json(text), kind, known_only=known_only)


def missing_keys(value: Any, kind: type[Any]) -> list[str]:
    """Return the fields of a dataclass without a default that are no keys of a map, in order of the alphabet."""
    required = {entry.name for entry in fields(kind) if entry.default is MISSING}
    return sorted(required - set(value)) if isinstance(value, dict) else []


def listed(names: list[str]) -> str:
    """Return the first few names in one text, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def shown(value: Any) -> str:
    """Return a JSON value in a few characters, without any that a terminal would obey."""
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in value if keys.count(key) > 1)
        raise WrongContentError(f"the key {shown(twice)} stands there twice")
    return value


def _no_constant(text: str) -> float:
    raise WrongContentError(f"not JSON ({text} is no number)")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise WrongContentError(f"the number {text[:_SHOWN]} is too large")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > 20 or not -_INT_LIMIT <= int(text) < 2 * _INT_LIMIT:
        raise WrongContentError(f"the number {text[:_SHOWN]} is too large")
    return int(text)


def _require_plain(value: Any, *, file_names: bool) -> None:
    """Raise WrongContentError for too many levels, and without `file_names` for text that UTF-8 cannot hold."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                below += entry.keys()
                below += entry.values()
            elif isinstance(entry, list):
                below += entry
            elif isinstance(entry, str) and not file_names:
                _require_encodable(entry)
        if not below:
            return
        level = below
    raise WrongContentError(f"nested more than {MAX_DEPTH} levels deep")


def _require_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise WrongContentError(f"the text {shown(text)} has half of a surrogate pair") from None


def _unknown_keys(value: Any, typed: Any, path: str) -> Iterator[str]:
    """Names of the keys that are in `value` and were not taken into `typed`."""
    if isinstance(value, dict) and isinstance(typed, dict):
        for key, entry in value.items():
            own = _joined(path, key)
            if key in typed:
                yield from _unknown_keys(entry, typed[key], own)
            else:
                yield own
    elif isinstance(value, list) and isinstance(typed, list | tuple):
        for index, (entry, other) in enumerate(zip(value, typed, strict=False)):
            yield from _unknown_keys(entry, other, f"{path}[{index}]")


_AT = re.compile(r"(?s)(.*) - at `(?:key in )?\$(.*)`")
_PART = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_WORDS = {"object": "map", "array": "list", "str": "text"}


def _in_words(error: msgspec.ValidationError, value: Any, kind: Any) -> str:
    """Return msgspec's complaint with the path of the key, the value that stands there, and what was expected."""
    found = _AT.fullmatch(str(error))
    message, path = found.groups() if found else (str(error), "")
    name, there = _locate(value, kind, str(error), path)
    subject = f"`{name}`" if name else "the whole"
    missing = re.fullmatch(r"Object missing required field `(.*)`", message)
    if missing:
        return f"`{_joined(name, missing[1])}` is missing"
    if message.startswith("Invalid enum value"):
        return f"{subject} is {shown(there)}, which is not known"
    expected = re.fullmatch(r"Expected `(.*?)`(.*)", message)
    if not expected:
        return f"{subject}: {message}" if name else message
    words = " or ".join(_WORDS.get(word, word) for word in expected[1].split(" | "))
    bounds = re.sub(r", got `.*`", "", expected[2])
    return f"{subject} is {shown(there)}, expected {words}{bounds}"


def _locate(value: Any, kind: Any, complaint: str, path: str) -> tuple[str, Any]:
    """Return the name and the value of what a complaint is about; msgspec leaves out the keys of maps: `a[...].b`."""

    def fails() -> bool:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            return str(error) == complaint
        except (FertoolError, UnicodeEncodeError):
            return False
        return False

    name, there = "", value
    for part in _PART.finditer(path):
        key = part[1] or (int(part[2]) if part[2] else None)
        if key is None:
            if not isinstance(there, dict):
                break
            key = _culprit(there, fails)
        name = f"{name}[{key}]" if isinstance(key, int) else _joined(name, key)
        there = there[key]
    return name, there


def _culprit(entries: dict[str, Any], fails: Callable[[], bool]) -> str:
    """Return the key of the entry that alone makes the conversion fail as the whole does, by halving."""
    everything, keys = dict(entries), list(entries)
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        entries.clear()
        entries.update((key, everything[key]) for key in half)
        keys = half if fails() else keys[len(half) :]
    entries.clear()
    entries.update(everything)
    return keys[0]


def _joined(path: str, key: str) -> str:
    plain = key if re.fullmatch(r"[\w.-]{1,64}", key, re.ASCII) else shown(key)
    return f"{path}.{plain}" if path else plain
