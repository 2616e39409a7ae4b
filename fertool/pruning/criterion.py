"""The interface of a criterion: the importance of channels.

Coupled channels, which share one id, have one score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.network import Network
from fertool.registry import CRITERIA
from fertool.spec import InputSpec

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset


@dataclass(frozen=True, eq=False)
class Scores:
    """The importance of each channel id, float64 [ids].

    `additive`: the values add up over the network, as changes of the loss do; otherwise they only
    compare channels of one layer.
    """

    values: Tensor
    additive: bool


class Criterion(ABC):
    """A measure of the importance of channels; a member has no arguments."""

    needs_images: ClassVar[bool]

    @abstractmethod
    def score(
        self,
        module: Network,
        graph: ChannelGraph,
        data: FaceDataset | None,
        input: InputSpec,
        *,
        normalization: str = "auto",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Scores:
        """Return the score of each channel id of a network, which is not changed.

        `normalization` is how scores compare across layers: by "layer", as they are ("none"), or as
        suits the criterion ("auto"). `data` may be None where the criterion needs no images;
        `on_progress` counts images.
        """


def load_criterion(name: str) -> Criterion:
    """Return the criterion of this name; raises UsageError with the choices for another name."""
    member: type[Criterion] = CRITERIA.load(name)
    return member()
