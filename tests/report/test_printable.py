"""Whatever a file says, a terminal and a page get nothing that they obey."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fertool.report.printable import json_text, printable, printable_lines

ANYTHING = st.text(st.characters())
"""Surrogates, controls and marks of direction included."""


@given(ANYTHING)
def test_everything_in_plain_text_prints_and_stays_in_its_place(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(new == old for old, new in zip(text, shown, strict=True) if old.isprintable())
    shown.encode()


@given(ANYTHING)
def test_lines_stay_lines(text):
    assert printable_lines(text).count("\n") == text.count("\n")
    assert printable_lines(text).replace("\n", " ") == printable(text)


@given(st.dictionaries(ANYTHING, ANYTHING | st.lists(ANYTHING)))
def test_json_means_the_same_and_shows_nothing_that_does_not_print(value):
    text = json_text(value)
    assert json.loads(text) == value
    assert text.replace("\n", " ").isprintable()
    text.encode()


def test_what_terminals_obey_is_gone():
    assert (
        printable("a\x1b[31m\x9b2J\u202eb\u2066c\u200bd\u2028e\x7ff\ufeff")
        == "a [31m 2J b c d e f "
    )
    assert printable("m\udce9.pt") == "m\ufffd.pt"
    assert printable("glücklich 表情 [b]") == "glücklich 表情 [b]"
    assert json_text({"a": "ü\x9b\U000e0001"}) == '{\n  "a": "ü\\u009b\\udb40\\udc01"\n}'
