"""Squared gradients of each image against one backward pass per image."""

import pytest
import torch
from torch import Tensor, nn

from fertool.hessian import grad_norms
from fertool.hessian.grad_norms import PerSampleGradNorms

LAYERS = {
    "few positions": (nn.Conv2d(6, 4, 3), (6, 4, 5)),
    "many positions": (nn.Conv2d(2, 4, 3, padding=1), (2, 7, 6)),
    "stride that leaves a rest": (
        nn.Conv2d(2, 3, (3, 2), stride=(2, 3), padding=(1, 0)),
        (2, 16, 17),
    ),
    "few positions, stride and dilation": (
        nn.Conv2d(4, 4, 3, stride=2, dilation=(1, 2), groups=2),
        (4, 7, 8),
    ),
    "many positions, groups and dilation": (nn.Conv2d(4, 6, 2, dilation=2, groups=2), (4, 9, 6)),
    "depthwise": (nn.Conv2d(5, 5, 5, padding=2, groups=5), (5, 6, 6)),
    "depthwise, few positions, two each": (nn.Conv2d(3, 6, 3, groups=3), (3, 4, 4)),
    "circular padding": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 5)),
    "linear": (nn.Linear(5, 3), (5,)),
    "linear over positions": (nn.Linear(2, 3), (4, 3, 2)),
}


def one_by_one(layer: nn.Module, x: Tensor, gradient: Tensor) -> Tensor:
    rows = []
    for image, g in zip(x, gradient, strict=True):
        (weight,) = torch.autograd.grad(layer(image[None]), layer.weight, g[None])
        rows.append(weight.flatten(1).square().sum(1))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk", [1, grad_norms._CHUNK_ELEMENTS])
@pytest.mark.parametrize("case", LAYERS)
def test_squared_norms_equal_those_of_single_images(case, chunk, monkeypatch):
    monkeypatch.setattr(grad_norms, "_CHUNK_ELEMENTS", chunk)
    layer, shape = LAYERS[case]
    layer.double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    squared_norms = PerSampleGradNorms(layer, x)
    for _ in range(2):
        gradient = torch.randn(layer(x).shape, dtype=torch.float64, generator=generator)
        in_weights, in_outputs = squared_norms(gradient)
        torch.testing.assert_close(in_weights, one_by_one(layer, x, gradient), rtol=1e-12, atol=0)
        channels_first = gradient.movedim(-1, 1) if isinstance(layer, nn.Linear) else gradient
        expected = channels_first.reshape(3, len(layer.weight), -1).square().sum(2)
        torch.testing.assert_close(in_outputs, expected, rtol=1e-12, atol=0)
