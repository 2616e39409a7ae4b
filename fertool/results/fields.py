"""The types of the values in results, with bounds and units, and the JSON form of a result."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from msgspec import UNSET, Meta

from fertool.strict_json import (
    Count,
    Difference,
    Finite,
    Fraction,
    Name,
    NonNegative,
    Positive,
    Text,
)

# Keys of JSON Schema that are not in its standard are free to use.
_SECONDS = Meta(extra_json_schema={"unit": "s"})
_BYTES = Meta(extra_json_schema={"unit": "byte"})
_JOULES = Meta(extra_json_schema={"unit": "J"})
_NATS = Meta(extra_json_schema={"unit": "nat"})

Value = bool | Annotated[int, Meta(ge=-(2**53), le=2**53)] | Finite | Text
"""The value of an option."""
Options = Annotated[Mapping[Name, Value], Meta(max_length=100)]
Interval = tuple[Fraction, Fraction]
Seconds = Annotated[float, Meta(gt=0, le=1e9), _SECONDS]
SecondsInterval = tuple[Seconds, Seconds]
TimeStamp = Annotated[Finite, _SECONDS]
WallTime = Annotated[NonNegative, _SECONDS]
FileSize = Annotated[Positive, _BYTES]
MemorySize = Annotated[Count, _BYTES]
Joules = Annotated[NonNegative, _JOULES]
Nats = Annotated[Finite, _NATS]
DifferenceInterval = tuple[Difference, Difference]
Ratio = Annotated[float, Meta(gt=0, le=1e12)]
RatioInterval = tuple[Ratio, Ratio]
_ROUNDING = 1e-9
"""By which an accuracy may lie outside of its own interval."""


def described(meaning: str) -> Meta:
    """Return what a key means, for its annotation: the schemas and the reference pages have it."""
    return Meta(description=meaning)


CI95 = described("its 95 % interval, Wilson's")
LANDMARK_ORDER = (
    "x and y of the eye at the left, the other eye, the tip of the nose and the corners of the "
    "mouth"
)
"""What the places of a face's five landmarks are."""


@dataclass(frozen=True)
class Result:
    """What a command measured or made.

    The fields are the keys of its JSON; those that are `UNSET` are missing there.
    """

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON: SI base units throughout."""
        return asdict(self, dict_factory=_json_keys)


def _json_keys(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    keys = {}
    for name, value in pairs:
        if value is not UNSET:
            # A key that is a keyword of Python has a field with an underscore: `import_`.
            keys[name.rstrip("_")] = value
    return keys


def values_of(source: Any, kind: type[Any], *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the values that the fields of a dataclass have in an instance of a similar one."""
    values = {}
    for each in fields(kind):
        if each.name not in without:
            values[each.name] = getattr(source, each.name)
    return values


def require_inside(accuracy: float, interval: tuple[float, float]) -> None:
    """Raise ValueError unless an accuracy lies inside of its interval."""
    low, high = interval
    # With a tolerance: at 0 and 1 the ends of an interval carry rounding errors.
    if not low - _ROUNDING <= accuracy <= high + _ROUNDING:
        raise ValueError(f"`accuracy` {accuracy} lies outside of its interval")
