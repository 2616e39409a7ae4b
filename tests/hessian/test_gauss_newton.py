"""Squared gradients against the brute-force Hessian of KL, and the errors that probes state."""

import math

import numpy as np
import pytest
import torch
from brute_force import (
    LABELS,
    NAMES,
    TRACES,
    brute_force,
    images,
    measure,
    small_net,
    values,
)
from torch import Tensor, nn


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish])
def test_exact_equals_the_brute_force_hessian(activation):
    net, x = small_net(activation), images(3)
    found = measure(net, x)
    assert [layer.name for layer in found.layers] == NAMES
    assert (found.hessian, found.samples, found.probes) == ("kl", 3, 0)
    for key, expected in brute_force(net, x, NAMES).items():
        assert expected.max() > 1e-4
        np.testing.assert_allclose(
            values(found, key), expected, rtol=1e-8, atol=1e-10 * expected.max()
        )
    for layer in found.layers:
        assert layer.weight_params == net.get_submodule(layer.name).weight[0].numel()


def test_linear_layers_over_several_positions_equal_the_brute_force_hessian():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(x)).mean((1, 2)))

    torch.manual_seed(0)
    net, x = Tokens().double(), images(3)
    for key, expected in brute_force(net, x, ["mix", "head"]).items():
        np.testing.assert_allclose(values(measure(net, x), key), expected, rtol=1e-10)
    found = measure(net, x, method="hutchinson-masked", probes=60)
    for key, expected in brute_force(net, x, ["mix", "head"], "cross-entropy").items():
        assert (
            np.abs(values(found, key) - expected) < 5 * values(found, f"{key}_sem") + 1e-9
        ).all()


@pytest.mark.parametrize("key", TRACES)
@pytest.mark.parametrize("probes", [2, 10])
def test_standard_errors_of_probes_are_as_large_as_stated(probes, key):
    net, x = small_net(nn.Hardswish), images(24)
    exact = values(measure(net, x), key)
    live = exact > 0
    assert live.mean() > 0.8
    runs = [measure(net, x, method="probe", probes=probes, seed=seed) for seed in range(60)]
    error = np.array([values(run, key) - exact for run in runs])[:, live]
    sem = np.array([values(run, f"{key}_sem") for run in runs])[:, live]
    # Unbiased: over 60 seeds the mean error of each channel is within 4 of its standard errors.
    assert np.abs(error.mean(0) / (error.std(0, ddof=1) / math.sqrt(60))).max() < 4
    # Errors are as large as stated, and spread like those of a normal distribution: 0.68 within
    # one, 0.997 within three.
    assert np.mean(np.square(error).mean(0) / np.square(sem).mean(0)) == pytest.approx(1, abs=0.3)
    assert np.mean(np.abs(error) < sem) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(error) < 3 * sem) > 0.97


def test_never_negative_for_a_network_that_is_sure():
    net = small_net(nn.Hardswish).float()
    with torch.no_grad():
        net[-1].weight *= 100
    for method in ("exact", "probe"):
        traces = values(measure(net, images(4).float(), method=method))
        assert traces.min() >= 0
        assert traces.max() > 0


def test_a_channel_that_reaches_nothing_has_trace_zero():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[1].weight[2], net[1].bias[2] = 0, -1  # shut by the ReLU
    layer = measure(net, images(3)).layers[0]
    assert layer.weight_trace[2] == layer.weight_trace_sem[2] == 0
    assert min(layer.weight_trace[i] for i in (0, 1, 3)) > 0


def test_hardsigmoid_works_although_it_has_no_second_derivative():
    net = nn.Sequential(nn.Linear(4, 3), nn.Hardsigmoid(), nn.Linear(3, 2)).double()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert values(measure(net, x, LABELS % 2)).min() > 0
