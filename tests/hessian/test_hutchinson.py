"""Hutchinson's estimator against the brute-force Hessian of the cross-entropy."""

import copy

import numpy as np
import pytest
import torch
from brute_force import (
    LABELS,
    NAMES,
    TRACES,
    brute_force,
    brute_force_activation_traces,
    brute_force_traces,
    images,
    measure,
    small_net,
    values,
)
from torch import Tensor, nn

from fertool.errors import FertoolError


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish])
@pytest.mark.parametrize("method", ["hutchinson", "hutchinson-masked"])
def test_products_estimate_the_brute_force_hessian_of_the_cross_entropy(method, activation):
    net, x = small_net(activation), images(3)
    found = measure(net, x, method=method, probes=60, seed=1)
    assert (found.hessian, found.samples, found.probes) == ("cross-entropy", 3, 60)
    for key, expected in brute_force(net, x, NAMES, "cross-entropy").items():
        error, sem = values(found, key) - expected, values(found, f"{key}_sem")
        exact = np.abs(error) < 1e-9 * np.abs(expected).max()  # a diagonal block has no noise
        assert (exact | (np.abs(error) < 5 * sem)).all()
        assert np.mean(exact | (np.abs(error) < 2 * sem)) > 0.8
        assert np.abs(error / expected.max()).max() > 1e-6  # estimates they are


def test_a_masked_product_is_less_noisy_and_exact_where_its_block_is_diagonal():
    net, x = small_net(nn.ReLU), images(3)
    one, masked = (
        measure(net, x, method=f"hutchinson{kind}", probes=30) for kind in ("", "-masked")
    )
    for key in TRACES:
        assert np.median(values(masked, f"{key}_sem")) < 0.5 * np.median(values(one, f"{key}_sem"))
    # The logits of a class are one number an image: z^2 H is H.
    expected = brute_force_activation_traces(net, x, "14", "cross-entropy")
    np.testing.assert_allclose(masked.layers[-1].activation_trace, expected, rtol=1e-9)
    # The difference of two equal means of squares: its root is as exact as half the digits.
    rounding = np.sqrt(np.finfo(np.float64).eps) * max(masked.layers[-1].activation_trace)
    assert max(masked.layers[-1].activation_trace_sem) < rounding


def test_batches_have_products_of_their_own_that_make_one_mean():
    net, x = small_net(nn.ReLU), images(4)
    found = measure(net, x, method="hutchinson-masked", probes=40, batch_size=2)
    for key, expected in brute_force(net, x, NAMES, "cross-entropy").items():
        assert (
            np.abs(values(found, key) - expected) < 5 * values(found, f"{key}_sem") + 1e-9
        ).all()


def test_hardsigmoid_has_second_derivatives_while_products_need_them():
    plain = small_net(nn.ReLU)
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Hardsigmoid() if isinstance(layer, nn.ReLU) else layer for layer in plain)
    )
    x, twin = images(3), copy.deepcopy(net)
    for index, layer in enumerate(twin):
        if isinstance(layer, nn.Hardsigmoid):
            twin[index] = nn.Sequential(Affine(), nn.Hardtanh(0, 1))
    for method in ("hutchinson", "exact"):
        ours, theirs = (measure(each, x, method=method) for each in (net, twin))
        for key in TRACES:
            np.testing.assert_allclose(
                values(ours, key), values(theirs, key), rtol=1e-6, atol=1e-12
            )  # its kernel rounds 1 / 6
    with pytest.raises(RuntimeError, match="hardsigmoid_backward"):
        brute_force_traces(net, x, "0", "cross-entropy")


class Affine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 6 + 0.5


def test_other_layers_without_second_derivatives_are_refused_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.second(torch.ops.aten.hardsigmoid(self.first(x)))

    with pytest.raises(FertoolError, match="no second derivative") as caught:
        measure(Net(), torch.randn(4, 3), LABELS % 2, method="hutchinson")
    assert "``method=exact``" in caught.value.hint


def test_many_masked_probes_converge():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(48, 4)).double()
    x = images(3)
    few, many = (
        measure(net, x, method="hutchinson-masked", probes=n).layers[0] for n in (10, 1000)
    )
    for key, expected in brute_force(net, x, ["0"], "cross-entropy").items():
        assert expected.min() < 0 < expected.max()
        np.testing.assert_allclose(
            getattr(many, key), expected, rtol=0, atol=0.1 * np.abs(expected).mean()
        )
        assert np.less(
            getattr(many, f"{key}_sem"), 0.25 * np.array(getattr(few, f"{key}_sem"))
        ).all()
