"""A network of several widths that asks a wider one where the narrower one is not sure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fertool.models.profile_network import ProfileNetwork


class CascadeNetwork(ProfileNetwork):
    """The narrowest profile sees each image, and wider ones follow until one is sure.

    `thresholds` has a number for each profile but the widest, which takes what reaches it: a
    profile is sure where the difference of its two largest logits, the margin, is that large or
    larger. On FER2013 that difference sorted images better than the largest probability and the
    entropy (docs/explanation/dynamic.md).
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        thresholds: Sequence[float],
        shares: Sequence[float],
    ) -> None:
        super().__init__(networks, shares)
        self.thresholds = tuple(thresholds)

    @property
    def executed(self) -> tuple[tuple[int, ...], ...]:
        """The networks that run for an image, by the profile that is sure: all narrower too."""
        count = len(self.networks)
        return tuple(tuple(range(index, count)) for index in range(count))

    def with_networks(
        self, networks: Sequence[nn.Module], gate: nn.Module | None = None
    ) -> CascadeNetwork:
        """Return a cascade of other forms of the profiles, with the same thresholds."""
        return CascadeNetwork(networks, self.thresholds, self.shares)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [N, K], and the profile int64 [N] that each image's are of."""
        narrowest = len(self.networks) - 1
        profiles = torch.full((len(x),), narrowest, device=x.device)
        logits: Tensor = self.networks[narrowest](x)
        rows = torch.arange(len(x), device=x.device)
        row_logits = logits
        # The widest profile is the first one.
        for index in reversed(range(narrowest)):
            rows = rows[margins_of(row_logits) < self.thresholds[index]]
            if not len(rows):
                break
            # Those that go on alone: the others would cost what a cascade saves.
            row_logits = self.networks[index](x[rows])
            logits = logits.index_copy(0, rows, row_logits)
            profiles[rows] = index
        return logits, profiles


def margins_of(logits: Tensor) -> Tensor:
    """Return the difference of the two largest logits, [N] of logits [N, K] with K above 1."""
    largest, second = logits.topk(2, dim=1).values.unbind(1)
    return largest - second
