"""The direct weight gradient of depthwise convolutions on small maps."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fertool.train.depthwise import direct_depthwise

CPU = torch.device("cpu")


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (3, 3), (4, 4), (3, 7)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), (5, 4), (7, 3)])
def test_gradients_equal_those_of_torch(side, stride, kernel, padding):
    generator = torch.Generator().manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=kernel == 5).double()
    direct = copy.deepcopy(plain)
    inputs = torch.randn(4, 6, *side, generator=generator, dtype=torch.float64)
    mine, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()

    with direct_depthwise(direct, CPU):
        output = direct(mine)
        probe = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        output.backward(probe)
    expected = plain(theirs)
    expected.backward(probe)

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    for got, wanted in zip(direct.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)


def test_only_depthwise_convolutions_on_the_cpu_change_and_all_of_them_change_back():
    depthwise, dense = nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Conv2d(4, 4, 3)
    module = nn.Sequential(depthwise, dense)

    with direct_depthwise(module, torch.device("cuda")):
        assert type(depthwise) is nn.Conv2d
    with direct_depthwise(module, CPU):
        assert type(depthwise) is not nn.Conv2d
        assert type(dense) is nn.Conv2d

    assert type(depthwise) is nn.Conv2d
