"""The only reader of JSON files: bounded, strict, and checked against a type.

A kind of JSON is described by a frozen dataclass whose fields carry their bounds
(`Annotated[int, msgspec.Meta(ge=1)]`) and whose `__post_init__` raises ValueError for fields that
do not fit each other. Errors name the path of the key and the value that stands there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from fertool.errors import FertoolError

T = TypeVar("T")

MAX_DEPTH = 32
"""Nested lists and maps; what commands write has 9."""
_INT_LIMIT = 2**63
_MAX_SHOWN = 40
"""Characters of a wrong value that an error shows."""
_MAX_LISTED = 5
"""Names that a message lists."""

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
NonNegative = Annotated[float, Meta(ge=0, le=1e30)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Difference = Annotated[float, Meta(ge=-1, le=1)]
"""Of two fractions."""
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class WrongContentError(ValueError):
    """What is wrong with a text or a value, without the file's name."""


@contextmanager
def wrapping_content_errors(where: str, problem: str, hint: str) -> Iterator[None]:
    """Turn a WrongContentError inside the block into a FertoolError with a hint.

    Its message is `where`: `problem`, unless that is empty: the WrongContentError's.
    """
    try:
        yield
    except WrongContentError as error:
        message = f"{problem}: {error}" if problem else str(error)
        raise FertoolError(f"{where}: {message}", hint) from None


def parse_json(text: str | bytes, *, file_names: bool = False) -> Any:
    """Return the value of a JSON text.

    Raises WrongContentError for what is not JSON (NaN and infinity are not), for repeated keys,
    integers beyond 64 bits, floats beyond double, more than `MAX_DEPTH` levels, and halves of
    surrogate pairs. These are accepted with `file_names`: they stand for bytes of names that are
    not UTF-8.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    # Before ValueError, of which it is a kind.
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

    Raises WrongContentError that names the first key of a wrong type or out of its bounds, with its
    value; where `known_only`, also for keys that `kind` does not have.
    """
    try:
        typed = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise WrongContentError(_explain(error, value, kind)) from None
    # From the `__post_init__` of a dataclass.
    except FertoolError as error:
        raise WrongContentError(error.message) from None
    except UnicodeEncodeError as error:
        raise WrongContentError(
            f"the text {shown(error.object)} has half of a surrogate pair"
        ) from None
    if known_only:
        unknown = list(_unknown_keys(value, msgspec.to_builtins(typed), path=""))
        if unknown:
            raise WrongContentError(f"unknown keys: {listed(unknown)}")
    return typed


def read_json(
    text: str | bytes,
    kind: type[T],
    where: str,
    problem: str,
    hint: str,
    *,
    known_only: bool = False,
) -> T:
    """Return a JSON text as an instance of `kind`.

    Raises FertoolError as `wrapping_content_errors` does.
    """
    with wrapping_content_errors(where, problem, hint):
        return as_type(parse_json(text), kind, known_only=known_only)


def missing_keys(value: Any, kind: type[Any]) -> list[str]:
    """Return, sorted, the fields of a dataclass without a default that are not keys of a map."""
    if not isinstance(value, dict):
        return []
    required = {entry.name for entry in fields(kind) if entry.default is MISSING}
    return sorted(required - set(value))


def listed(names: Sequence[str]) -> str:
    """Return the first few names in one text, and how many more there are."""
    text = ", ".join(names[:_MAX_LISTED])
    if len(names) > _MAX_LISTED:
        text += f" and {len(names) - _MAX_LISTED:,} more"
    return text


def shown(value: Any) -> str:
    """Return a JSON value in a few characters, without control characters for a terminal."""
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    # JSON escapes what is not ASCII, control characters among it.
    text = json.dumps(value)
    if len(text) <= _MAX_SHOWN:
        return text
    return f"{text[:_MAX_SHOWN]}…"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise WrongContentError(f"the key {shown(key)} is repeated")
            seen.add(key)
    return value


def _no_constant(text: str) -> float:
    raise WrongContentError(f"not JSON ({text} is no number)")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise WrongContentError(f"the number {text[:_MAX_SHOWN]} is too large")
    return value


def _bounded_int(text: str) -> int:
    # By its length first: Python refuses to convert thousands of digits.
    if len(text) > 20 or not -_INT_LIMIT <= int(text) < 2 * _INT_LIMIT:
        raise WrongContentError(f"the number {text[:_MAX_SHOWN]} is too large")
    return int(text)


def _require_plain(value: Any, *, file_names: bool) -> None:
    """Raise WrongContentError for too many levels, or for text that UTF-8 cannot encode.

    Such text is accepted with `file_names`.
    """
    level = [value]
    # Level by level, not by recursion: a text may nest deeper than Python can call.
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
    """Yield the paths of the keys in `value` that did not become part of `typed`.

    `typed` is the value of a dataclass as plain JSON: it has the known keys only.
    """
    if isinstance(value, dict) and isinstance(typed, dict):
        for key, entry in value.items():
            own_path = _join_path(path, key)
            if key in typed:
                yield from _unknown_keys(entry, typed[key], own_path)
            else:
                yield own_path
    elif isinstance(value, list) and isinstance(typed, list | tuple):
        for index, (entry, other) in enumerate(zip(value, typed, strict=False)):
            yield from _unknown_keys(entry, other, f"{path}[{index}]")


# The forms of msgspec's messages: "Expected `int` >= 1 - at `$.a[0].b`".
_PATH_IN_MESSAGE = re.compile(r"(?s)(.*) - at `(?:key in )?\$(.*)`")
_PATH_PART = re.compile(r"\.(\w+)|\[(\d+)\]|\[\.\.\.\]")
_WORDS = {"object": "map", "array": "list", "str": "text"}


def _explain(error: msgspec.ValidationError, value: Any, kind: Any) -> str:
    """Return msgspec's message with the path of the key, the value there, and what was expected."""
    message, path = str(error), ""
    found = _PATH_IN_MESSAGE.fullmatch(message)
    if found:
        message, path = found.groups()
    name, wrong_value = _locate(value, kind, complaint=str(error), path=path)
    subject = f"`{name}`" if name else "the whole"

    missing = re.fullmatch(r"Object missing required field `(.*)`", message)
    if missing:
        return f"`{_join_path(name, missing[1])}` is missing"
    if message.startswith("Invalid enum value"):
        return f"{subject} is {shown(wrong_value)}, which is not known"
    expected = re.fullmatch(r"Expected `(.*?)`(.*)", message)
    if expected:
        types = expected[1].split(" | ")
        words = " or ".join(_WORDS.get(word, word) for word in types)
        bounds = re.sub(r", got `.*`", "", expected[2])
        return f"{subject} is {shown(wrong_value)}, expected {words}{bounds}"
    # From the `__post_init__` of a dataclass: it names its fields itself.
    return f"{subject}: {message}" if name else message


def _locate(value: Any, kind: Any, complaint: str, path: str) -> tuple[str, Any]:
    """Return the name and the value of what a complaint is about.

    msgspec leaves out the keys of maps (`a[...].b`): they are found by converting parts of the map.
    """

    def fails_alike() -> bool:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            return str(error) == complaint
        except (FertoolError, UnicodeEncodeError):
            return False
        return False

    name, found = "", value
    for part in _PATH_PART.finditer(path):
        key, index = part[1], part[2]
        if index:
            name = f"{name}[{index}]"
            found = found[int(index)]
            continue
        if not key:
            # msgspec gives the index in a list: only keys of maps are hidden.
            if not isinstance(found, dict):
                break
            key = _find_wrong_key(found, fails_alike)
        name = _join_path(name, key)
        found = found[key]
    return name, found


def _find_wrong_key(entries: dict[str, Any], fails: Callable[[], bool]) -> str:
    """Return the key of an entry that alone makes the conversion fail as the whole does.

    By bisection of `entries`, which are part of what `fails` converts and are restored at the end.
    """
    everything = dict(entries)
    keys = list(entries)
    # Each conversion is as slow as the map is large, so that trying each key alone takes too long.
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        entries.clear()
        for key in half:
            entries[key] = everything[key]
        keys = half if fails() else keys[len(half) :]
    entries.clear()
    entries.update(everything)
    return keys[0]


def _join_path(path: str, key: str) -> str:
    # Other keys are quoted: they may hold anything that a terminal would obey.
    if not re.fullmatch(r"[\w.-]{1,64}", key, re.ASCII):
        key = shown(key)
    return f"{path}.{key}" if path else key
