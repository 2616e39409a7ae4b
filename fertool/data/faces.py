"""What every reader hands over, before it is fitted to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fertool.data.storage import take

SPLITS = ("train", "val", "test")

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Faces:
    """One split of a source as it was found; nothing writes into it, for its images may be a mapped file.

    `images` uint8 [N, C, H, W]; `labels` int64 [N], indices into `classes`; `votes`, if the source has them, uint8
    [N, 10] in the order of FER+ (eight expressions, unknown, not a face); `soft_labels`, if any, float32 [N, K].
    """

    images: Pixels
    labels: Indices
    classes: tuple[str, ...]
    votes: Pixels | None = None
    soft_labels: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: NDArray[Any]) -> Faces:
        """Return the images at `index`, int positions or a bool mask; see `take` for where they lie."""
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return replace(
            self,
            images=take(self.images, positions),
            labels=self.labels[index],
            votes=None if self.votes is None else self.votes[index],
            soft_labels=None if self.soft_labels is None else self.soft_labels[index],
        )


@dataclass(frozen=True)
class Findings:
    """What a reader did to images or passed over: counts by conversion, by suffix, and by folder within the source."""

    converted: Mapping[str, int] = field(default_factory=dict)
    not_images: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


NO_FINDINGS = Findings()


class Reader(Protocol):
    """An opened source: `name` for messages, `digest` of all content, `splits` that have images, `read` for each."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def splits(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def findings(self) -> Findings:
        """What was converted in the splits that were read, and what was passed over."""
        ...

    def read(self, split: str) -> Faces:
        """Return the images of one of `splits`."""
        ...
