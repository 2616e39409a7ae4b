import pytest

from fertool.runtime import kernel_timing
from fertool.runtime.environment import processor_kind
from fertool.runtime.kernel_timing import KINDS, time_kernel


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_kernel_is_timed_with_floats_and_with_integers(kind, monkeypatch):
    monkeypatch.setattr(kernel_timing, "_SECONDS", 0.0)
    sizes = (8, 8, 6) if kind.startswith("conv") else (8, 6)
    floats, integers = time_kernel(kind, sizes)
    assert 0 < floats < 0.1
    assert 0 < integers < 0.1


def test_more_channels_take_more_time(monkeypatch):
    monkeypatch.setattr(kernel_timing, "_SECONDS", 0.02)
    for few, many in zip(
        time_kernel("conv3", (8, 8, 24)), time_kernel("conv3", (64, 64, 24)), strict=True
    ):
        assert many > 3 * few


def test_a_kind_of_processor_has_a_name():
    assert processor_kind()
