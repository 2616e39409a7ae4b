"""Options that describe images and classes: one message for each mistake, in every command."""

import pytest

from fertool.config.foreign_files import ForeignModel
from fertool.config.importing import ImportConfig
from fertool.config.network import NetworkConfig
from fertool.errors import UsageError

describing = pytest.mark.parametrize("config", [ForeignModel, ImportConfig])


@describing
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"classes": ("a", "b", "a")}, "``classes``: 'a' twice"),
        ({"classes": ("a", "")}, "``classes``: an empty name"),
        ({"std": (0.5, 0.0, 0.5)}, "``std=0.5,0,0.5``: must be above 0"),
        ({"mean": (float("nan"),)}, "nan"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(config, given, message):
    with pytest.raises(UsageError) as raised:
        config(**given)
    assert message in raised.value.message


@pytest.mark.parametrize("config", [NetworkConfig, ImportConfig])
def test_images_have_one_or_three_channels(config):
    assert config(input_channels=3)
    with pytest.raises(UsageError, match="``input_channels=2``"):
        config(input_channels=2)


def test_statistics_of_bytes_are_taken_for_a_mistake_on_import():
    with pytest.raises(UsageError, match="of pixels from 0 to 1, 127"):
        ImportConfig(mean=(127.5,))
    # Where the range of the pixels is an option they may be right.
    assert ForeignModel(mean=(127.5,), pixel_range="0..255")


def test_a_time_limit_describes_no_file():
    assert not ForeignModel(time_limit=60).is_given
    assert ForeignModel(input_size=48).is_given
