"""The interface of a reader, and the raw data that it returns, not fitted to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fertool.data.storage import select_images

SPLITS = ("train", "val", "test")

T = TypeVar("T", bound=np.generic)

Pixels = NDArray[np.uint8]
Indices = NDArray[np.int64]
Note = Callable[[str], None]
"""Receives a remark about the data."""


@dataclass(frozen=True)
class RawSplit:
    """One split of a source as it was read. Treat it as read-only: its images may be a mapped file.

    `images` uint8 [N, C, H, W]; `labels` int64 [N], indices into `classes`; `votes`, if the source
    has them, uint8 [N, 10] in the order of FER+ (eight expressions, unknown, not a face);
    `soft_labels`, if any, float32 [N, K]. `names` [N] are what the source calls the images, paths
    for one; `file_sizes` int32 [N, 2] are (width, height) in pixels before resizing.
    """

    images: Pixels
    labels: Indices
    classes: tuple[str, ...]
    votes: Pixels | None = None
    soft_labels: NDArray[np.float32] | None = None
    names: NDArray[np.object_] | None = None
    file_sizes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: NDArray[Any]) -> RawSplit:
        """Return the images at `index`, int positions or a bool mask.

        `fertool.data.storage.select_images` describes when the images are copied.
        """
        # Positions, by which a run of images can be recognized and need not be copied.
        positions = np.flatnonzero(index) if index.dtype == np.bool_ else index
        return replace(
            self,
            images=select_images(self.images, positions),
            labels=self.labels[index],
            votes=_select(self.votes, index),
            soft_labels=_select(self.soft_labels, index),
            names=_select(self.names, index),
            file_sizes=_select(self.file_sizes, index),
        )


def _select(rows: NDArray[T] | None, index: NDArray[Any]) -> NDArray[T] | None:
    return None if rows is None else rows[index]


@dataclass(frozen=True)
class Findings:
    """What a reader converted or skipped.

    `converted` counts images by conversion, `not_images` files by suffix, and `left_out` images by
    folder within the source. `unreadable` has the reason why each file was skipped, by its path.
    """

    converted: Mapping[str, int] = field(default_factory=dict)
    not_images: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


NO_FINDINGS = Findings()


class Reader(Protocol):
    """An opened source.

    `name` is for messages, `digest` covers all content, `splits` lists the splits that have images.
    """

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
        """The conversions in the splits that were read so far, and what was skipped."""
        ...

    def read(self, split: str) -> RawSplit:
        """Return the images of one of `splits`."""
        ...
