import pytest

from fertool.data import labels
from fertool.errors import FertoolError


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("anger", "angry"),
        ("Happiness", "happy"),
        (" SADNESS ", "sad"),
        ("surprised", "surprise"),
        ("fearful", "fear"),
    ],
)
def test_spellings_of_the_sources_become_one_name(spelling, name):
    assert labels.canonical_expression(spelling, "here") == name


def test_an_unknown_name_is_an_error_that_says_where_and_lists_the_choices():
    with pytest.raises(FertoolError, match="faces/boredom: 'boredom'") as error:
        labels.canonical_expression("boredom", "faces/boredom")
    assert "contempt" in error.value.hint


@pytest.mark.parametrize(
    ("order", "first_and_last"),
    [
        (labels.FER2013_ORDER, ("angry", "neutral")),
        (labels.FERPLUS_ORDER, ("neutral", "contempt")),
        (labels.RAFDB_ORDER, ("surprise", "neutral")),
        (labels.AFFECTNET_ORDER, ("neutral", "contempt")),
    ],
)
def test_every_source_order_holds_each_canonical_name_once(order, first_and_last):
    assert (order[0], order[-1]) == first_and_last
    assert set(order) == set(labels.EXPRESSIONS[: len(order)])
