import torch

from fertool.models.architecture import get_architecture
from fertool.models.blocks import EfficientChannelAttention


def kernels(module):
    return [
        layer.conv.kernel_size
        for layer in module.modules()
        if isinstance(layer, EfficientChannelAttention)
    ]


def test_attention_kernels_follow_the_widths():
    build = get_architecture("ean")
    with torch.device("meta"):
        assert kernels(build()) == [(1, 3)] * 2 + [(1, 5)] * 7
        assert kernels(build(width_mult=0.25)) == [(1, 3)] * 9


def test_parameters_stay_within_the_recipes_bound():
    with torch.device("meta"):
        assert sum(p.numel() for p in get_architecture("ean")().parameters()) <= 1_000_000
