"""A source of faces fitted to a model: the order of classes, the size and channels of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fertool.data import pixels
from fertool.data.dataset import FaceDataset
from fertool.data.duplicates import distinct_from, hold_out
from fertool.data.ferplus import label_by_votes
from fertool.data.labels import FERPLUS_ORDER, class_order, match_classes, name_classes
from fertool.data.options import DataOptions
from fertool.data.reader import SPLITS, Findings, RawSplit, Reader
from fertool.errors import FertoolError, unknown_name

VALIDATION_FRACTION = 0.1
"""Held out of the training images of a source that has no validation split."""

Note = Callable[[str], None]


class DataSource:
    """A source fitted to a model: `split` returns the data sets, made once each and kept."""

    def __init__(self, reader: Reader, options: DataOptions, on_note: Note) -> None:
        self.name = reader.name
        self._reader = reader
        self._options = options
        self._on_note = on_note
        self._raw: dict[str, RawSplit] = {}
        self._fitted: dict[str, FaceDataset] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the content that was read, hexadecimal."""
        return self._reader.digest

    @property
    def findings(self) -> Findings:
        """What was converted in the splits that were read, and what was skipped."""
        return self._reader.findings

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of every split: those asked for, else the source's own."""
        if self._options.classes is None:
            return self._own_classes
        names = self._options.classes
        return tuple(name_classes(dict.fromkeys(names, "the model's classes")).values())

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that exist; `val` always does where `train` does."""
        existing = set(self._reader.splits)
        if "train" in existing:
            existing.add("val")
        return tuple(split for split in SPLITS if split in existing)

    def split(self, name: str) -> FaceDataset:
        """Return one split, fitted to the options.

        Raises FertoolError when it has no images, or when training images lack a class that the
        source should have.
        """
        if name not in self._fitted:
            self._fitted[name] = self._fit(name)
        return self._fitted[name]

    def raw(self, name: str) -> RawSplit:
        """Return one split as it was read, with all its images; raises FertoolError for none."""
        if name not in SPLITS:
            raise unknown_name("split", name, SPLITS)
        if name not in self.splits:
            raise FertoolError(
                f"{self.name}: no images in the split '{name}'",
                f"its splits are: {', '.join(self.splits) or 'none'}",
            )
        if name not in self._raw:
            self._read(name)
        return self._raw[name]

    def labeled(self, name: str) -> RawSplit:
        """Return one split as it was read, labeled by the FER+ rule where there are votes."""
        faces = self.raw(name)
        if faces.votes is None:
            return faces
        return label_by_votes(faces, self._options.ferplus_rule)

    def distinct_from(self, split: str, other: str) -> Tensor:
        """Return bool [N]: which images of `split` are not exact duplicates of one in `other`."""
        images = self.split(split).images.numpy()
        others = self.split(other).images.numpy()
        return torch.from_numpy(distinct_from(images, others))

    def count_val_duplicates_of_test(self) -> int:
        """Count the validation images that are exact duplicates of test images.

        It is 0 unless the source itself has both splits: a part held out here has none.
        """
        if not {"val", "test"} <= set(self._reader.splits):
            return 0
        val = self.raw("val").images
        test = self.raw("test").images
        return len(val) - int(distinct_from(val, test).sum())

    @property
    def _own_classes(self) -> tuple[str, ...]:
        if self._options.ferplus is not None:
            return class_order(FERPLUS_ORDER)
        return class_order(self._reader.classes)

    def _read(self, name: str) -> None:
        """Read a split, or both training and validation where the source does not divide them."""
        own = self._reader.splits
        if name in own and (name != "train" or "val" in own):
            self._raw[name] = self._reader.read(name)
            return

        everything = self._reader.read("train")
        held_out = hold_out(everything, VALIDATION_FRACTION)
        self._raw["train"] = everything.subset(~held_out)
        self._raw["val"] = everything.subset(held_out)
        if held_out.any():
            count = f"{held_out.sum()} of {len(everything)} training images"
            self._on_note(f"{self.name}: no validation split; {count} are held out for it")
        else:
            self._on_note(
                f"{self.name}: no validation split, and too few images to hold any out for it"
            )

    def _fit(self, name: str) -> FaceDataset:
        labeled = self.labeled(name)
        # The raw split: a rule of FER+ may have dropped every image, which is another error.
        if not len(self.raw(name)):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}', and too few training images to "
                "hold any out for it",
                "two different images of a class are the least from which one is held out",
            )
        faces = _map_classes(labeled, self.classes)
        self._note_dropped(name, len(labeled) - len(faces))
        if not len(faces):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}' show {', '.join(self.classes)}",
                f"its classes are: {', '.join(self._own_classes)}",
            )
        if name == "train":
            self._require_classes(faces)

        size = self._options.size or faces.images.shape[-1]
        soft_labels = faces.soft_labels
        return FaceDataset(
            images=pixels.fit_images(faces.images, size, self._options.channels),
            labels=torch.from_numpy(faces.labels),
            classes=faces.classes,
            split=name,
            digest=self.digest,
            soft_labels=None if soft_labels is None else torch.from_numpy(soft_labels),
        )

    def _note_dropped(self, name: str, count: int) -> None:
        if count:
            self._on_note(
                f"{self.name}: {count} {name} images of classes that the model lacks are left out"
            )

    def _require_classes(self, faces: RawSplit) -> None:
        """Raise FertoolError for training images that lack a class which the source should have."""
        present = set(np.unique(faces.labels).tolist())
        missing: list[str] = []
        unknown: list[str] = []
        for k, name in enumerate(faces.classes):
            if k in present:
                continue
            # A source need not have every class of the model: only its own can be missing.
            if name in self._own_classes:
                missing.append(name)
            else:
                unknown.append(name)
        if missing:
            raise FertoolError(
                f"{self.name}: no training images of {', '.join(missing)}",
                "add some: a model cannot learn a class that it never sees",
            )
        if unknown:
            self._on_note(f"{self.name}: has no class {', '.join(unknown)}, which the model knows")


def _map_classes(faces: RawSplit, classes: tuple[str, ...]) -> RawSplit:
    """Map labels to indices into `classes`, by name; images of other classes are dropped."""
    new_index = np.full(len(faces.classes), -1, np.int64)
    target_of = match_classes(faces.classes, classes)
    for k, name in enumerate(faces.classes):
        if name in target_of:
            new_index[k] = classes.index(target_of[name])
    is_kept = new_index >= 0
    faces = replace(faces, labels=new_index[faces.labels], classes=classes)
    if faces.soft_labels is not None:
        # Columns of classes that the source lacks stay 0.
        soft = np.zeros((len(faces), len(classes)), np.float32)
        soft[:, new_index[is_kept]] = faces.soft_labels[:, is_kept]
        faces = replace(faces, soft_labels=soft)

    faces = faces.subset(faces.labels >= 0)
    if faces.soft_labels is not None:
        # Dropped classes took their part of the votes with them.
        total = faces.soft_labels.sum(axis=1, keepdims=True)
        faces = replace(faces, soft_labels=faces.soft_labels / total)
    return faces
