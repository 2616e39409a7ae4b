import pytest

from fertool.config.network import NetworkConfig
from fertool.errors import UsageError
from fertool.workflows.new_network import input_of


def normalization(text, channels):
    found = input_of(NetworkConfig(normalize=text, input_channels=channels))
    return found.mean, found.std


def test_a_normalization_is_a_name_or_numbers_for_all_or_each_channel():
    assert normalization("fer2013", 3) == ((129 / 255,) * 3, (64 / 255,) * 3)
    assert normalization("imagenet", 3)[0] == (0.485, 0.456, 0.406)
    assert normalization("0.5/0.25", 1) == ((0.5,), (0.25,))
    assert normalization("0.5/0.25", 3) == ((0.5,) * 3, (0.25,) * 3)
    assert normalization("0.1,0.2,0.3/1,1,1", 3) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagenet", "3 channels, but ``input_channels`` is 1"),
        ("imagnet", "not means and deviations"),
        ("0.5", "not means and deviations"),
        ("0.5/0.1,0.2", "1 means and 2 deviations"),
        ("124/58", "of pixels from 0 to 1"),
        ("nan/0.5", "of pixels from 0 to 1"),
        ("0.5/0", "of pixels from 0 to 1"),
    ],
)
def test_a_normalization_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        NetworkConfig(normalize=text)
