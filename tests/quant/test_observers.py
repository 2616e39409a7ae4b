import numpy as np
import pytest
import torch

from fertool.errors import UsageError
from fertool.quant.observers import (
    HistogramObserver,
    RangeObserver,
    activation_qparams,
    gated_qparams,
    integer_weight,
    weight_scales,
)


def seen(values, ends=None):
    ranges = RangeObserver(ends)
    for part in values.split(500):
        assert ranges(part) is part
    counts = HistogramObserver(ranges.low, ranges.high)
    for part in values.split(500):
        counts(part)
    return counts


def normal(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def squared_error(values, scale, zero_point, high):
    values = values.double().numpy()
    integers = np.clip(np.rint(values / scale) + zero_point, 0, high)
    return float((((integers - zero_point) * scale - values) ** 2).mean())


def test_min_max_covers_every_value_and_zero():
    grid = activation_qparams(seen(normal(3000) + 10), "min-max")
    assert grid.zero_point == 0
    assert grid.scale * 255 == pytest.approx((normal(3000) + 10).max().item(), rel=1e-6)
    values = normal(3000)
    grid = activation_qparams(seen(values), "min-max")
    assert grid.scale * 255 == pytest.approx((values.max() - values.min()).item(), rel=1e-6)
    assert grid.zero_point == round(-values.min().item() / grid.scale)


@pytest.mark.parametrize("positive", [True, False])
def test_percentile_is_numpys(positive):
    values = normal(20000).abs() if positive else normal(20000)
    grid = activation_qparams(seen(values), "percentile", percentile=99.0)
    low, high = (0.0, np.percentile(values, 99)) if positive else np.percentile(values, [0.5, 99.5])
    bin_width = (values.max() - values.min().clamp(max=0)).item() / 2048
    assert grid.scale * 255 == pytest.approx(high - low, abs=3 * bin_width)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("spread", "high"), [(0.2, np.inf), (2, np.inf), (9, np.inf), (9, 3), (1, 3)]
)
def test_gated_qparams_begin_at_minus_three_and_are_the_best_of_those(spread, high, bits):
    values, ends, levels = spread * normal(20000), (-3.0, high), 2**bits - 1
    counted = seen(values, ends)
    # HardSigmoid tells none beyond 3 apart, and needs no clipping on a grid that ends before.
    steps = range(1 if high == np.inf else (levels + 1) // 2, levels + 1)
    inside = values[(values >= -3) & (values <= high)]
    errors = {n: squared_error(inside, 3 / n, n, levels) for n in steps}
    grid = gated_qparams(counted, ends, "mse", bits)
    assert grid.scale == pytest.approx(3 / grid.zero_point, rel=1e-7)
    assert errors[grid.zero_point] <= 1.01 * min(errors.values())
    grid = gated_qparams(counted, ends, "min-max", bits)
    reach = {n: 3 * (levels - n) / n for n in steps}
    wanted = [n for n in steps if reach[n] >= min(values.max().item(), high)]
    assert grid.zero_point == (max(wanted) if wanted else min(steps))


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_the_best_of_a_brute_force_search(positive, bits):
    values = normal(20000).abs() if positive else normal(20000)
    high = 2**bits - 1
    grids = {
        method: activation_qparams(seen(values), method, bits) for method in ("min-max", "mse")
    }
    errors = {
        m: squared_error(values, grid.scale, grid.zero_point, high) for m, grid in grids.items()
    }
    tries = np.linspace(0.1, 1.1, 500) * grids["min-max"].scale
    zero_point = grids["mse"].zero_point
    best = min(squared_error(values, scale, zero_point, high) for scale in tries)
    assert best / 1.0001 <= errors["mse"] <= 1.05 * best
    # With few levels it pays to cut the tails off.
    assert errors["mse"] < (0.8 if bits == 4 else 1.0) * errors["min-max"]


def test_a_site_that_is_always_zero_keeps_a_finite_grid():
    assert activation_qparams(seen(torch.zeros(10)), "mse").scale == 1.0


def test_weights_of_each_channel_fill_their_range():
    weight = normal(6 * 20).reshape(6, 4, 5) * torch.arange(6).reshape(6, 1, 1)
    limits = torch.tensor([127, 127, 64, 64, 7, 1])
    scale = weight_scales(weight, limits, "min-max")
    integers = integer_weight(weight, scale, limits)
    assert scale[0] == 0
    assert integers[1:].flatten(1).abs().amax(dim=1).tolist() == limits[1:].tolist()
    assert (
        (integers * scale.reshape(-1, 1, 1) - weight).abs() <= scale.reshape(-1, 1, 1) / 2 + 1e-6
    ).all()


def test_mse_scales_are_the_best_of_a_brute_force_search():
    weight, limits = normal(3 * 200).reshape(3, 200), torch.tensor([7, 7, 7])
    chosen = weight_scales(weight, limits, "mse")
    for row, scale in zip(weight.double().numpy(), chosen.tolist(), strict=True):
        tries = np.linspace(0.1, 1.0, 500) * np.abs(row).max() / 7
        errors = [
            ((np.clip(np.rint(row / s), -7, 7) * s - row) ** 2).sum() for s in (*tries, scale)
        ]
        assert errors[-1] <= 1.05 * min(errors)
        assert errors[-1] < errors[-2]


def test_unknown_methods_name_the_choices():
    with pytest.raises(UsageError) as caught:
        activation_qparams(seen(normal(10)), "mmse")
    assert caught.value.hint.startswith("did you mean 'mse'?")
    with pytest.raises(UsageError, match="weight range 'median'"):
        weight_scales(normal(4).reshape(2, 2), torch.tensor([7, 7]), "median")
