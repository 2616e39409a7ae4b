"""A network of several widths and a gate that chooses one of them for each image (recipe 4)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 3
"""The gate looks at an image in this many rows and columns."""
SIDE = 24
"""Images are averaged down to about this side first, so that the gate costs the same for all sizes."""
STATISTICS = 5
HIDDEN = 44
"""Units of the gate's first layer; with three profiles the gate has 2,159 parameters."""


class FixedConv(nn.Conv2d):
    """A convolution whose kernels do not learn, and so are not counted as parameters; its work is counted."""

    def __init__(self, kernels: Tensor) -> None:
        out, channels, high, wide = kernels.shape
        super().__init__(channels, out, (high, wide), padding=(high // 2, wide // 2), bias=False)
        del self.weight
        self.register_buffer("weight", kernels)


class ImageGate(nn.Module):
    """Statistics of an image and two layers that say which profile suits it: [N, C, S, S] to logits [N, profiles].

    The statistics are recipe 4's, each in 3 x 3 fields of the image: intensity (the mean, and the mean distance from
    the usual gray), edge density (mean gradient across and down) and texture complexity (mean absolute Laplacian).
    Few operators in all: the smallest networks take no longer than a hundred of them.
    """

    def __init__(self, profiles: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        point = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
        across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        bend = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]) / 4
        self.measures = FixedConv(torch.stack([point, across, across.T, bend])[:, None])
        self.standardise = nn.BatchNorm1d(STATISTICS * GRID**2, affine=False)
        self.fc1 = nn.Linear(STATISTICS * GRID**2, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, profiles)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the profiles."""
        logits: Tensor = self.fc2(self.relu(self.fc1(self.standardise(self.statistics(x)))))
        return logits

    def statistics(self, x: Tensor) -> Tensor:
        """Return what the gate knows of each image, [N, 45], before it is standardised."""
        gray = x if x.shape[1] == 1 else x.mean(1, keepdim=True)
        gray = F.avg_pool2d(gray, max(1, x.shape[-1] // SIDE))
        fields = F.avg_pool2d(
            torch.cat([gray, self.measures(gray).abs()], 1), gray.shape[-1] // GRID
        )
        if fields.shape[-1] > GRID:
            fields = fields[..., :GRID, :GRID]
        return fields.flatten(1)

    def folded(self) -> ImageGate:
        """Return a copy for inference, the standardisation in the first layer's weights."""
        gate = copy.deepcopy(self).eval()
        mean, variance = (
            self.standardise.get_buffer(f"running_{name}") for name in ("mean", "var")
        )
        with torch.no_grad():
            gate.fc1.weight.mul_((variance + self.standardise.eps).rsqrt())
            gate.fc1.bias.sub_(gate.fc1.weight @ mean)
        gate.add_module("standardise", nn.Identity())
        return gate


class DynamicNetwork(nn.Module):
    """Networks of falling width, the profiles, and the gate; [N, C, S, S] to logits [N, num_classes].

    An image passes through the gate and through the one network that the gate chose for it. `shares` says which part
    of the images each profile got where it was measured.
    """

    def __init__(
        self, gate: ImageGate, networks: Sequence[nn.Module], shares: Sequence[float]
    ) -> None:
        super().__init__()
        self.gate = gate
        self.networks = nn.ModuleList(networks)
        self.shares = tuple(shares)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; work is done for the chosen profiles only."""
        choice = self.choose(x)
        rows = [(choice == index).nonzero().flatten() for index in range(len(self.networks))]
        parts = [
            network(x[row]) for network, row in zip(self.networks, rows, strict=True) if len(row)
        ]
        order = torch.cat(rows)
        logits = torch.cat(parts)
        return torch.empty_like(logits).index_copy_(0, order, logits)

    def choose(self, x: Tensor) -> Tensor:
        """Return the profile of each image, int64 [N]."""
        choice: Tensor = self.gate(x).argmax(1)
        return choice
