import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert labels.find_expression(spelling) == name


def name_classes(*names):
    return labels.name_classes(dict.fromkeys(names, "faces"))


def test_aliases_count_only_where_all_names_are_expressions():
    assert name_classes("joy", "CALM") == {"joy": "happy", "CALM": "neutral"}
    assert name_classes("joy", "calm", "bored") == {"joy": "joy", "calm": "calm", "bored": "bored"}


def test_a_name_in_two_forms_of_unicode_is_one_class():
    assert set(name_classes("gelangweilt", "m\u00fcde", "mu\u0308de", " müde ").values()) == {
        "gelangweilt",
        "müde",
    }


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31m", "\udcff", "\u202eevil", "x" * 101])
def test_a_name_that_cannot_be_printed_is_an_error_that_says_where(name):
    with pytest.raises(FertoolError, match=r"faces/x: .* cannot be the name of a class"):
        labels.name_classes({name: "faces/x"})


@given(st.lists(st.text(max_size=30), max_size=20))
def test_any_names_become_classes_or_an_error(names):
    try:
        classes = name_classes(*names)
    except FertoolError:
        return
    assert set(classes) == set(names)
    assert name_classes(*classes.values()) == {name: name for name in classes.values()}


def test_spaces_of_other_scripts_are_parts_of_names():
    name = "\u9000\u5c48\u3000\u9854"
    assert name_classes("bored\u00a0face", name) == {
        "bored\u00a0face": "bored\u00a0face",
        name: name,
    }


def test_a_models_classes_are_matched_by_name_then_by_meaning():
    assert labels.match_classes(("happiness", "bored"), ("bored", "happy")) == {
        "happiness": "happy",
        "bored": "bored",
    }
    assert labels.match_classes(("calm", "neutral", "odd"), ("neutral",)) == {"neutral": "neutral"}


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
