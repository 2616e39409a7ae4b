import json
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from fertool.errors import FertoolError
from fertool.strict_json import MAX_DEPTH, WrongContentError, as_type, parse_json, read_json


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, Meta(ge=1, le=10)]
    mean: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) > self.size:
            raise ValueError("more means than `size`")


@dataclass(frozen=True)
class Outer:
    name: str
    parts: dict[str, Inner]
    kind: Literal["a", "b"] = "a"


GOOD = {
    "name": "x",
    "parts": {"left": {"size": 3, "mean": [0.5]}, "right wing": {"size": 2}},
    "kind": "b",
}


def complaint(**changes):
    with pytest.raises(WrongContentError) as caught:
        as_type({**GOOD, **changes}, Outer, known_only=True)
    return str(caught.value)


def test_good_content_becomes_the_type():
    assert as_type(GOOD, Outer, known_only=True).parts["left"] == Inner(3, (0.5,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 5}, "`name` is 5, expected text"),
        ({"name": None}, "`name` is null, expected text"),
        ({"parts": [1]}, "`parts` is a list of 1, expected map"),
        ({"parts": {"left": {"size": "abc"}}}, '`parts.left.size` is "abc", expected int'),
        (
            {"parts": {"left": {"size": 2}, "right": {"size": 99}}},
            "`parts.right.size` is 99, expected int <= 10",
        ),
        ({"parts": {"left": {"size": True}}}, "`parts.left.size` is true, expected int"),
        ({"parts": {"a b\n": {"size": 0}}}, '`parts."a b\\n".size` is 0, expected int >= 1'),
        (
            {"parts": {"left": {"size": 3, "mean": [0, "x"]}}},
            '`parts.left.mean[1]` is "x", expected float',
        ),
        ({"parts": {"left": {"size": 1, "mean": [0, 1]}}}, "`parts.left`: more means than `size`"),
        ({"parts": {"left": {}}}, "`parts.left.size` is missing"),
        ({"parts": {"left": {"size": 1, "more": 2}}}, "unknown keys: parts.left.more"),
        ({"kind": "c"}, '`kind` is "c", which is not known'),
        ({"other": 1}, "unknown keys: other"),
        ({"name": ["x" * 99]}, "`name` is a list of 1, expected text"),
    ],
)
def test_the_complaint_names_key_value_and_what_was_expected(changes, said):
    assert complaint(**changes) == said


def test_the_one_wrong_entry_of_many_is_found_and_nothing_is_changed_by_looking():
    value = {"name": "x", "parts": {str(k): {"size": 1 if k != 777 else 11} for k in range(1000)}}
    before = json.dumps(value)
    with pytest.raises(WrongContentError, match=r"`parts\.777\.size` is 11"):
        as_type(value, Outer)
    assert json.dumps(value) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{} x", "not JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ('{"a": 1e999}', "too large"),
        ('{"a": ' + "9" * 5000 + "}", "too large"),
        ('{"a": 1, "a": 2}', '"a" is repeated'),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ("[" * 100_000, "nested"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested"),
        (b'{"a": "\xff"}', "UTF-8"),
    ],
)
def test_what_is_no_json_or_too_much_of_it_is_refused(text, said):
    with pytest.raises(WrongContentError, match=said):
        parse_json(text)


def test_depth_is_counted_and_pairs_of_surrogates_are_text():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json('"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json('"\\udce9.pt"', file_names=True) == "\udce9.pt"


def test_an_error_names_the_file_and_what_it_was_read_as():
    with pytest.raises(FertoolError) as caught:
        read_json(
            '{"name": 1, "parts": {}}', Outer, "f.json", "the thing is damaged", "make it again"
        )
    assert caught.value.message == "f.json: the thing is damaged: `name` is 1, expected text"
    assert caught.value.hint == "make it again"
