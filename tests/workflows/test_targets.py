import pytest

from fertool.errors import UsageError
from fertool.workflows.targets import SECONDS, is_ratio, parse_floors, parse_target


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("0.5", 0.5), (".25", 0.25), ("10M", 0.5), ("5m", 0.25), ("1k", 5e-5), ("0.01G", 0.5)],
)
def test_ratios_and_absolute_values(text, ratio):
    assert parse_target("target_flops", text, 20e6) == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["1.5", "0", "1", "abc", "-0.5", "30M", "", "nan", "inf", "0.5x"])
def test_anything_else_names_the_flag_and_shows_what_to_write(text):
    with pytest.raises(UsageError, match="``target_flops=") as caught:
        parse_target("target_flops", text, 20e6)
    assert "``target_flops=0.5``" in caught.value.hint


def test_a_number_without_a_unit_is_told_from_a_ratio():
    with pytest.raises(UsageError) as caught:
        parse_target("target_params", "50000", 1e6)
    assert "needs a unit, one of k, m, g" in caught.value.hint


def test_times_have_units_of_their_own():
    assert parse_target("target_latency", "0.4ms", 1e-3, SECONDS) == pytest.approx(0.4)
    assert parse_target("target_latency", "250 us", 1e-3, SECONDS) == pytest.approx(0.25)
    assert [is_ratio(text) for text in ("0.5", " .5 ", "20M", "4ms")] == [True, True, False, False]
    with pytest.raises(UsageError, match="``target_latency=20M``"):
        parse_target("target_latency", "20M", 1e-3, SECONDS)


WIDTHS = {"features.0": 16, "features.1.block.0": 72, "features.2.block.0": 88}
EIGHT = dict.fromkeys(WIDTHS, 8)
LAYERS = {
    "features.0": ("features.0", "features.1.block.2", "late"),
    "features.1.block.0": ("features.1.block.0",),
    "features.2.block.0": ("features.2.block.0",),
}


@pytest.mark.parametrize(
    ("texts", "floors"),
    [
        (["features.0"], {"features.0": 16}),
        (["features.?.block.0=0.5"], {"features.1.block.0": 36, "features.2.block.0": 44}),
        (["features.1.block.0=40", "features.*=8"], {**EIGHT, "features.1.block.0": 40}),
        # Any layer that makes the channels of a group stands for it, and a block for what is in it.
        (["late"], {"features.0": 16}),
        (["features.1.block"], {"features.0": 16, "features.1.block.0": 72}),
        (["features.0=999"], {"features.0": 16}),
        (["features.0=1.0", "features.1.block.0=0.0"], {"features.0": 16, "features.1.block.0": 0}),
    ],
)
def test_widths_that_must_stay(texts, floors):
    assert parse_floors(texts, WIDTHS, LAYERS) == floors


@pytest.mark.parametrize(
    ("text", "reason"),
    [("stem", "no layer that can be pruned is called stem"), ("features.0=x", "x is not a number")],
)
def test_a_width_that_there_is_not_is_refused(text, reason):
    with pytest.raises(UsageError, match=reason):
        parse_floors([text], WIDTHS, LAYERS)
