import math

import torch
from torch.fx import symbolic_trace
from torch.nn import functional as F

from fertool.models.blocks import (
    EfficientChannelAttention,
    StochasticDepth,
    eca_kernel,
    make_divisible,
)


def test_make_divisible_rounds_to_eight_but_never_down_by_more_than_a_tenth():
    # 12 would round up anyway; 11 rounds down to 8, which is under 0.9 x 11.
    assert [make_divisible(value) for value in (1, 8, 11, 12, 20.4, 35.2, 144)] == [
        8,
        8,
        16,
        16,
        24,
        32,
        144,
    ]
    assert make_divisible(116, 2) == 116


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.rand(4000, 2, 3, 3) + 0.5
    for layer in (StochasticDepth(0.25), symbolic_trace(StochasticDepth(0.25).train())):
        y = layer(x)
        kept = y.flatten(1).ne(0).all(1)
        assert torch.equal(y[~kept], torch.zeros_like(y[~kept]))
        torch.testing.assert_close(y[kept], x[kept] / 0.75)
        # Five standard deviations of a binomial with 4000 draws.
        assert abs(kept.float().mean() - 0.75) < 5 * (0.25 * 0.75 / 4000) ** 0.5


def test_stochastic_depth_is_the_identity_in_eval_mode():
    x = torch.rand(8, 2, 3, 3)
    assert StochasticDepth(0.9).eval()(x) is x


def test_local_attention_is_a_convolution_over_the_pooled_channels():
    torch.manual_seed(0)
    layer, x = EfficientChannelAttention(5), torch.randn(3, 7, 4, 6)
    row = F.conv1d(x.mean((2, 3))[:, None], layer.conv.weight.reshape(1, 1, 5), padding=2)[:, 0]
    torch.testing.assert_close(layer(x), x * row.sigmoid()[:, :, None, None])


def test_attention_kernel_is_the_odd_number_nearest_to_the_papers_formula():
    # 256, 512 and 1024 channels have 5 in the paper's own networks, 2048 have 7.
    for channels in range(1, 2500):
        exact = math.log2(channels) / 2 + 1 / 2
        assert eca_kernel(channels) == min(
            (1, 3, 5, 7), key=lambda odd: (abs(odd - exact), -odd)
        ), channels
