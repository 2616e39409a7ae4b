"""What all errors have in common: the name of the file, and lists of bounded length."""

import pytest

from fertool.errors import FertoolError, UsageError, first_line, join_problems, naming


def test_an_error_gets_the_name_of_the_file_once_and_stays_of_its_kind():
    with pytest.raises(UsageError) as raised, naming("model.pt"), naming("model.pt"):
        raise UsageError("is quantized", "give another one")
    assert raised.value.message == str(raised.value) == "model.pt: is quantized"
    assert raised.value.hint == "give another one"


def test_other_exceptions_pass_as_they_are():
    with pytest.raises(ValueError, match=r"^wrong$"), naming("model.pt"):
        raise ValueError("wrong")


def test_of_many_problems_the_first_are_listed_and_the_others_counted():
    assert join_problems([]) == ""
    assert join_problems(["a is missing", "b is unknown"]) == "a is missing; b is unknown"
    text = join_problems([f"problem {number}" for number in range(23)])
    assert text.endswith("; problem 19; and 3 more")


def test_a_fertool_error_has_its_message_as_text():
    assert str(FertoolError("model.pt: damaged", "copy it again")) == "model.pt: damaged"


def test_a_reason_is_one_line_even_of_an_exception_without_words():
    assert first_line(RuntimeError("\n no kernel\nat line 3")) == "no kernel"
    assert first_line(AssertionError()) == "AssertionError"
