"""Wrong values for every place of a JSON value: other types, numbers out of range, missing,
repeated, nested deep.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
WRONG: tuple[Any, ...] = (
    *(
        None,
        True,
        "abc",
        "",
        "x" * 5000,
        "\ud800",
        "\x1b[31m",
        [],
        {},
        [[]],
        [1, "a"],
        {"a": {}},
        DEEP,
    ),
    *(
        -1,
        0,
        10**6,
        2**53 + 1,
        2**64,
        10**30,
        0.5,
        -0.5,
        1e-320,
        1e300,
        -1e300,
        float("nan"),
        float("inf"),
    ),
)


def places(value: Any, here: Place = (), most: int = 3) -> Iterator[Place]:
    """Yield the way to every entry; of long lists to the first few alone."""
    if isinstance(value, dict):
        entries: list[tuple[str | int, Any]] = list(value.items())
    else:
        entries = list(enumerate(value[:most])) if isinstance(value, list) else []
    for key, entry in entries:
        yield (*here, key)
        yield from places(entry, (*here, key), most)


def mutations(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a description and a copy of `value` with one place wrong.

    All of them differ from `value`.
    """
    for place in places(value):
        for wrong in WRONG:
            yield f"{place} = {str(wrong)[:20]!r}", _changed(value, place, wrong)
        yield f"{place} gone", _changed(value, place, None, remove=True)
        if isinstance(place[-1], str):
            yield f"{place} beside another", _changed(value, (*place[:-1], "another"), 1)
        else:
            yield f"{place} many", _repeated(value, place)


def _changed(value: Any, place: Place, wrong: Any, *, remove: bool = False) -> Any:
    changed = copy.deepcopy(value)
    parent = _parent(changed, place)
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = wrong
    return changed


def _repeated(value: Any, place: Place) -> Any:
    changed = copy.deepcopy(value)
    parent = _parent(changed, place)
    parent.extend([parent[place[-1]]] * 300)
    return changed


def _parent(value: Any, place: Place) -> Any:
    for key in place[:-1]:
        value = value[key]
    return value
