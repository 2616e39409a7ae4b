"""The values of options as text."""

from collections.abc import Mapping

import pytest

from fertool.config.option import Option
from fertool.config.option_text import parse_value, value_as_given
from fertool.errors import UsageError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(bool, "Yes", True), (bool, "off", False), (int, "3", 3), (float | None, "3", 3.0)],
)
def test_a_text_becomes_a_value_of_the_type(kind, text, value):
    parsed = parse_value(kind, text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [(bool, "2", "true or false"), (int, "0.5", "whole number"), (float, "x", "not a number")],
)
def test_a_text_of_another_type_is_an_error(kind, text, message):
    with pytest.raises(ValueError, match=message):
        parse_value(kind, text)


def test_lists_and_maps_come_from_their_texts():
    sizes = Option("Sizes.", separator=",")
    assert value_as_given("sizes", tuple[int, ...], sizes, "1, 8,32") == (1, 8, 32)
    arguments = Option("Arguments.", flag="arch-arg")
    given = value_as_given("arch_args", Mapping[str, str], arguments, ["width_mult=0.5"])
    assert given == {"width_mult": "0.5"}


def test_an_error_has_the_name_of_the_flag():
    with pytest.raises(UsageError, match="``arch_arg=width``: not KEY=VALUE"):
        value_as_given("arch_args", Mapping[str, str], Option("", flag="arch-arg"), ["width"])
    with pytest.raises(UsageError, match="``sizes=1,x``: not numbers"):
        value_as_given("sizes", tuple[int, ...], Option("", separator=","), "1,x")
