"""The direct weight gradient of depthwise convolutions on small maps."""

from __future__ import annotations

import pytest
import torch
from graphs import network_of
from torch import nn

from fertool.graph.depthwise_conv import DepthwiseConv2d, direct_weight_gradients

CPU = torch.device("cpu")


@pytest.mark.parametrize("side", [(1, 1), (2, 3), (3, 3), (4, 4), (3, 7)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), (5, 4), (7, 3)])
def test_gradients_equal_those_of_torch(side, stride, kernel, padding):
    generator = torch.Generator().manual_seed(0)
    shape = (6, 6, kernel, stride, padding)
    plain = nn.Conv2d(*shape, groups=6, bias=kernel == 5).double()
    direct = DepthwiseConv2d(*shape, groups=6, bias=kernel == 5).double()
    direct.load_state_dict(plain.state_dict())
    inputs = torch.randn(4, 6, *side, generator=generator, dtype=torch.float64)
    mine, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()

    with direct_weight_gradients(direct, CPU):
        output = direct(mine)
        probe = torch.randn(output.shape, generator=generator, dtype=torch.float64)
        output.backward(probe)
    expected = plain(theirs)
    expected.backward(probe)

    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(mine.grad, theirs.grad)
    for got, wanted in zip(direct.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)


def test_only_networks_that_train_on_the_cpu_sum_gradients_directly():
    network = network_of(
        nn.Sequential(
            nn.Conv2d(4, 4, 5, padding=2, groups=4),
            nn.Conv2d(4, 4, 3, groups=4, dilation=2),
            nn.Conv2d(4, 4, 3),
        ),
        (4, 12, 12),
    )
    depthwise, dilated, dense = (network.get_submodule(name) for name in "012")
    assert isinstance(depthwise, DepthwiseConv2d)
    assert not isinstance(dense, DepthwiseConv2d)

    with direct_weight_gradients(network, torch.device("cuda")):
        assert not depthwise.direct_gradient
    with direct_weight_gradients(network, CPU):
        assert depthwise.direct_gradient
        # Where they cannot be, they stay PyTorch's.
        assert not dilated.direct_gradient
    assert not depthwise.direct_gradient
