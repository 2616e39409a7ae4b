import pytest

from fertool.config.reading import DataConfig
from fertool.errors import UsageError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"votes": "v.csv", "ferplus": "v.csv"}, "``votes`` with ``ferplus``"),
        ({"votes_weight": 0.5}, "``votes_weight=0.5``: there are no votes"),
        ({"votes": "v.csv", "votes_weight": 1.5}, "``votes_weight=1.5``: must be"),
    ],
)
def test_votes_that_make_no_sense_are_a_usage_error(options, message):
    with pytest.raises(UsageError, match=message) as error:
        DataConfig(**options)
    assert error.value.hint
