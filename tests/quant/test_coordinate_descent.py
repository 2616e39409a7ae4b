import itertools

import pytest
import torch

from fertool.models.regression import ordered_factor_
from fertool.quant.coordinate_descent import RoundedWeights, descend
from fertool.quant.weight_rounding import gptq_integers, rounding_order

LIMIT = 3


def correlated(seed, groups=1, channels=1, fan_in=6):
    """Return weights, inputs' covariances, and what GPTQ makes of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, 200, fan_in, generator=generator, dtype=torch.float64)
    x[:, :, 1:] += 1.5 * x[:, :, :1]
    covariance = x.mT @ x / 200
    weight = torch.randn(groups, channels, fan_in, generator=generator, dtype=torch.float64)
    scales = weight.abs().amax(2) / LIMIT
    limits = torch.full((groups, channels), LIMIT)
    order = rounding_order(covariance.diagonal(dim1=1, dim2=2))
    factor = ordered_factor_(covariance.clone(), order)
    integers = gptq_integers(weight, scales, limits, order, factor)
    return weight, RoundedWeights(integers, scales), limits, covariance


def errors(weight, rounded, covariance):
    rest = weight - rounded.integers * rounded.scales[..., None]
    return ((rest @ covariance) * rest).sum(2)


def as_it_is(scales):
    return scales


@pytest.mark.parametrize("seed", range(5))
def test_no_other_value_of_a_single_integer_is_better(seed):
    weight, start, limits, covariance = correlated(seed)
    # With scales that may not change, rounds end in a minimum of the integers alone.
    kept = start.scales
    found = start
    for _ in range(10):
        found = descend(weight, found, limits, covariance, lambda scales: kept.to(scales))
    least = errors(weight, found, covariance)
    assert (found.integers == found.integers.round()).all()
    for column, value in itertools.product(range(6), range(-LIMIT, LIMIT + 1)):
        other = found.integers.clone()
        other[..., column] = value
        changed = errors(weight, RoundedWeights(other, kept), covariance)
        assert (changed >= least - 1e-9).all()


def test_the_error_of_no_channel_grows_and_their_mean_falls():
    weight, start, limits, covariance = correlated(0, groups=3, channels=20, fan_in=150)
    found = descend(weight, start, limits, covariance, as_it_is)
    before, after = errors(weight, start, covariance), errors(weight, found, covariance)
    assert (after <= before * (1 + 1e-6)).all()
    assert (after / before).mean() < 0.97
    assert found.integers.abs().max() <= LIMIT


def test_scales_are_those_of_least_squares_and_storable():
    weight, start, limits, covariance = correlated(1, channels=4, fan_in=30)
    found = descend(weight, start, limits, covariance, lambda scales: scales.half().to(scales))
    assert (found.scales == found.scales.half().double()).all()
    least = errors(weight, found, covariance)
    for factor in (0.97, 1.03):
        moved = RoundedWeights(found.integers, found.scales * factor)
        assert (errors(weight, moved, covariance) > least).all()


def test_channels_of_zeros_and_inputs_that_never_change_are_no_trouble():
    weight, start, limits, covariance = correlated(2, channels=2)
    weight[:, 0] = 0
    integers = start.integers.clone()
    integers[:, 0] = 0
    scales = start.scales.clone()
    scales[:, 0] = 1
    covariance = 1e-12 * torch.eye(6, dtype=torch.float64)[None]
    found = descend(weight, RoundedWeights(integers, scales), limits, covariance, as_it_is)
    assert found.integers.isfinite().all()
    assert found.scales.isfinite().all()
    assert (found.scales > 0).all()
    assert not found.integers[:, 0].any()
