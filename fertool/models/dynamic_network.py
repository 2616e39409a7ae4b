"""A network of several widths and a gate that selects one of them for each image (recipe 4)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.graph.batch_norm import BatchNorm1d
from fertool.models.profile_network import ProfileNetwork

FIELDS = 3
"""Rows and columns of fields into which the gate divides an image."""
REDUCED_SIDE = 24
"""Images are averaged to about this side first: the gate then costs the same for all sizes."""
STATISTICS = 5
"""Statistics of each field."""
HIDDEN = 44
"""Units of the gate's first layer; with three profiles the gate has 2,159 parameters."""


class FixedConv(nn.Conv2d):
    """A convolution with constant kernels: they are not counted as parameters, its work is."""

    def __init__(self, kernels: Tensor) -> None:
        out_channels, in_channels, height, width = kernels.shape
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=(height, width),
            padding=(height // 2, width // 2),
            bias=False,
        )
        del self.weight
        self.register_buffer("weight", kernels)


class ImageGate(nn.Module):
    """Statistics of an image and two layers that score the profiles: [N, C, S, S] to [N, profiles].

    The statistics are recipe 4's, each in 3 x 3 fields of the image: intensity (the mean, and the
    mean distance from the usual gray), edge density (mean gradient across and down) and texture
    complexity (mean absolute Laplacian). Few operators in all: the smallest networks take no longer
    than a hundred of them.
    """

    def __init__(self, profiles: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        identity = torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
        # Sobel and Laplace kernels, scaled to the range of the pixels.
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        laplace = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]) / 4
        kernels = torch.stack([identity, sobel, sobel.T, laplace])
        # The names of these attributes are those of tensors in model files.
        self.measures = FixedConv(kernels[:, None])
        self.standardise = BatchNorm1d(STATISTICS * FIELDS**2, affine=False)
        self.fc1 = nn.Linear(STATISTICS * FIELDS**2, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, profiles)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the profiles."""
        standardized = self.standardise(self.statistics(x))
        logits: Tensor = self.fc2(self.relu(self.fc1(standardized)))
        return logits

    def statistics(self, x: Tensor) -> Tensor:
        """Return the statistics of each image, [N, 45], before they are standardized."""
        gray = x if x.shape[1] == 1 else x.mean(1, keepdim=True)
        gray = F.avg_pool2d(gray, max(1, x.shape[-1] // REDUCED_SIDE))
        measured = torch.cat([gray, self.measures(gray).abs()], 1)
        fields = F.avg_pool2d(measured, gray.shape[-1] // FIELDS)
        # A side that is no multiple of 3 leaves a rest of one field or more.
        if fields.shape[-1] > FIELDS:
            fields = fields[..., :FIELDS, :FIELDS]
        return fields.flatten(1)

    def folded(self) -> ImageGate:
        """Return a copy for inference, with the standardization in the first layer's weights."""
        gate = copy.deepcopy(self).eval()
        mean = self.standardise.get_buffer("running_mean")
        variance = self.standardise.get_buffer("running_var")
        # The scale first: the shift is then in units of the scaled weights.
        with torch.no_grad():
            gate.fc1.weight.mul_((variance + self.standardise.eps).rsqrt())
            gate.fc1.bias.sub_(gate.fc1.weight @ mean)
        gate.add_module("standardise", nn.Identity())
        return gate


class DynamicNetwork(ProfileNetwork):
    """Profiles and a gate, which looks at an image and selects the one network that it gets."""

    gate: ImageGate

    def __init__(
        self, gate: ImageGate, networks: Sequence[nn.Module], shares: Sequence[float]
    ) -> None:
        super().__init__(networks, shares, gate)

    @property
    def executed(self) -> tuple[tuple[int, ...], ...]:
        """The networks that run for an image, by the profile whose logits it gets: it alone."""
        return tuple((index,) for index in range(len(self.networks)))

    def with_networks(
        self, networks: Sequence[nn.Module], gate: nn.Module | None = None
    ) -> DynamicNetwork:
        """Return a network of other forms of the profiles, with this gate or another form of it."""
        chosen = self.gate if gate is None else gate
        assert isinstance(chosen, ImageGate)
        return DynamicNetwork(chosen, networks, self.shares)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [N, K], and the profile int64 [N] that each image's are of."""
        choice: Tensor = self.gate(x).argmax(1)
        rows_by_profile = []
        logits_by_profile = []
        for index, network in enumerate(self.networks):
            rows = (choice == index).nonzero().flatten()
            rows_by_profile.append(rows)
            if len(rows):
                logits_by_profile.append(network(x[rows]))
        logits = torch.cat(logits_by_profile)
        # Back into the order of the images.
        logits = torch.empty_like(logits).index_copy_(0, torch.cat(rows_by_profile), logits)
        return logits, choice

    def choose(self, x: Tensor) -> Tensor:
        """Return the profile of each image, int64 [N], by the gate alone."""
        choice: Tensor = self.gate(x).argmax(1)
        return choice
