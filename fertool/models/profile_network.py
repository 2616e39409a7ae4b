"""What dynamic networks have in common: several widths, one of which is chosen for an image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

LEAST_SHARE = 1e-3
"""The share of a profile that classified none of the images: it still gets some of all."""


class ProfileNetwork(nn.Module):
    """Networks of falling width, the profiles; [N, C, S, S] to logits [N, num_classes].

    `shares` are the fractions of the images that got each profile's logits where they were
    measured; `gate` chooses the profiles, where they do not do that themselves.
    """

    gate: nn.Module | None

    def __init__(
        self,
        networks: Sequence[nn.Module],
        shares: Sequence[float],
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.gate = gate
        self.networks = nn.ModuleList(networks)
        self.shares = tuple(shares)

    @property
    @abstractmethod
    def executed(self) -> tuple[tuple[int, ...], ...]:
        """The networks that run for an image, by the profile whose logits it gets."""

    @abstractmethod
    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [N, K], and the profile int64 [N] that each image's are of."""

    @abstractmethod
    def with_networks(
        self, networks: Sequence[nn.Module], gate: nn.Module | None = None
    ) -> ProfileNetwork:
        """Return the same choice among other forms of the profiles, by another form of the gate."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; only networks that an image needs run on it."""
        logits, _ = self.route(x)
        return logits

    def choose(self, x: Tensor) -> Tensor:
        """Return the profile of each image, int64 [N]."""
        _, profiles = self.route(x)
        return profiles
