"""Damaged JSON texts: every field of a document with values that its reader may not expect."""

import json
import random
from collections.abc import Iterator
from typing import Any

MARK = "@@here@@"
DEEP = 5_000

VALUES = {
    "null": "null",
    "true": "true",
    "a text": '"a text"',
    "an empty text": '""',
    "a long text": '"' + "x" * 20_000 + '"',
    "control characters": '"\\u001b[31mred\\u0007\\u009b1m\\u202e"',
    "a lone surrogate": '"\\ud800"',
    "zero": "0",
    "one point zero": "1.0",
    "minus one": "-1",
    "a fraction": "0.5",
    "2 ** 31": str(2**31),
    "10 ** 30": str(10**30),
    "1e308": "1e308",
    "1e999": "1e999",
    "NaN": "NaN",
    "-Infinity": "-Infinity",
    "an empty list": "[]",
    "an empty object": "{}",
    "a list of objects": "[{}]",
    "an object of lists": '{"a":[1,2],"b":[]}',
    "a long list": "[" + ",".join(["1"] * 5_000) + "]",
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
}

Path = tuple[str | int, ...]


def walk(document: Any, draw: random.Random) -> Path:
    """Return a random place inside a document,
    each level as likely as the others however large it is.
    """
    path: list[str | int] = []
    value = document
    while isinstance(value, dict | list) and value and draw.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        path.append(key)
        value = value[key]
    return tuple(path)


def replaced(document: Any, path: Path, fragment: str) -> str:
    """Return the document's text with the JSON `fragment`, valid or not, at one place."""
    if not path:
        return fragment
    copy = json.loads(json.dumps(document))
    _parent(copy, path)[path[-1]] = MARK
    return json.dumps(copy).replace(f'"{MARK}"', fragment)


def removed(document: Any, path: Path) -> str:
    """Return the document's text without one key or entry."""
    copy = json.loads(json.dumps(document))
    del _parent(copy, path)[path[-1]]
    return json.dumps(copy)


def with_extra(document: Any, path: Path) -> str:
    """Return the document's text with a key, or an entry, more than it should have."""
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path:
        place = place[key]
    if isinstance(place, dict):
        place["unheard of"] = 1
    elif isinstance(place, list):
        place.append(place[-1] if place else 1)
    return json.dumps(copy)


def damages(document: Any, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (what was done, text) for ever: each a random damage of one place of the document."""
    while True:
        path = walk(document, draw)
        where = ".".join(map(str, path)) or "the whole"
        kind = draw.choice([*VALUES, "removed", "added to", "cut short"])
        if kind == "removed":
            if path:
                yield f"{where} removed", removed(document, path)
        elif kind == "added to":
            yield f"{where} with more in it", with_extra(document, path)
        elif kind == "cut short":
            text = json.dumps(document)
            yield "text cut short", text[: draw.randrange(len(text))]
        else:
            yield f"{where} = {kind}", replaced(document, path, VALUES[kind])


def _parent(document: Any, path: Path) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document
