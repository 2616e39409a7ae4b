"""The data set type of all readers: images and labels as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fertool.data.pixels import as_tensor
from fertool.data.storage import iter_chunks, select_images


@dataclass(frozen=True)
class FaceDataset:
    """Face images of one split, in memory or mapped from a file. Treat them as read-only.

    `images` uint8 [N, C, S, S]; `labels` int64 [N], indices into `classes`;
    `split` is train, val or test; `digest` is the SHA-256 of the whole source's content, the same
    for each of its splits; `soft_labels`, if any, float32 [N, K] with rows that sum to 1.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    split: str
    digest: str
    soft_labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> FaceDataset:
        """Return the images at `index`: int64 positions [M] in any order, or a bool mask [N]."""
        soft_labels = None if self.soft_labels is None else self.soft_labels[index]
        positions = index.nonzero().flatten() if index.dtype == torch.bool else index
        if self.images.device.type == "cpu":
            # By select_images, for the images may be larger than memory.
            images = as_tensor(select_images(self.images.numpy(), positions.numpy()))
        else:
            images = self.images[positions]
        return replace(self, images=images, labels=self.labels[index], soft_labels=soft_labels)

    def to(self, device: torch.device | str) -> FaceDataset:
        """Return the same data on another device."""
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            soft_labels=None if self.soft_labels is None else self.soft_labels.to(device),
        )

    def class_counts(self) -> Tensor:
        """Return the number of images of each class, int64 [K]."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def targets(self) -> Tensor:
        """Return target probabilities float32 [N, K]: the soft labels if any, else one-hot rows."""
        if self.soft_labels is not None:
            return self.soft_labels
        return F.one_hot(self.labels, len(self.classes)).to(torch.float32)

    def images_digest(self) -> str:
        """Return the SHA-256 of the images' shape and pixels in order, without the labels."""
        digest = hashlib.sha256(str(list(self.images.shape)).encode())
        for chunk in iter_chunks(self.images.cpu().numpy()):
            digest.update(np.ascontiguousarray(chunk).data)
        return digest.hexdigest()

    def balanced_subset(self, n: int, seed: int) -> FaceDataset:
        """Return `n` random images (all, if there are fewer), the classes as even as possible.

        Classes alternate, so each prefix of the result is balanced too.
        """
        generator = torch.Generator().manual_seed(seed)
        labels = self.labels.cpu()
        shuffled = torch.randperm(len(self), generator=generator)
        # An image's rank among the images of its class: sorted by it, the classes alternate.
        rank = torch.empty(len(self), dtype=torch.int64)
        for k in range(len(self.classes)):
            members = shuffled[labels[shuffled] == k]
            rank[members] = torch.arange(len(members))
        order = shuffled[torch.argsort(rank[shuffled], stable=True)]
        return self.subset(order[:n].to(self.labels.device))

    def batches(
        self, batch_size: int, *, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images uint8 [B, C, S, S] and labels int64 [B], shuffled by `generator` if any."""
        order = None
        if generator is not None:
            order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for start in range(0, len(self), batch_size):
            # In order a slice, which copies nothing.
            part: slice | Tensor = slice(start, start + batch_size)
            if order is not None:
                part = order[part]
            yield self.images[part], self.labels[part]
