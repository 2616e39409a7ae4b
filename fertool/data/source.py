"""A source of faces fitted to a model: the order of classes, the size and channels of images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fertool.data import pixels
from fertool.data.class_groups import relabel, resolve_groups
from fertool.data.dataset import FaceDataset
from fertool.data.duplicates import distinct_from, hold_out
from fertool.data.ferplus import label_by_votes, mix_votes
from fertool.data.labels import FERPLUS_ORDER, class_order, match_classes, name_classes
from fertool.data.options import DataOptions
from fertool.data.reader import SPLITS, Findings, Note, RawSplit, Reader
from fertool.errors import FertoolError, unknown_name

VALIDATION_FRACTION = 0.1
"""Held out of the training images of a source that has no validation split."""


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
        """The classes of every split: a model's, the groups asked for, or the source's own."""
        if self._options.classes is None:
            return self._grouped_classes
        names = self._options.classes
        return tuple(name_classes(dict.fromkeys(names, "the model's classes")).values())

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that exist; `val` always does where `train` does."""
        existing = {*self._reader.splits, *self.held_out}
        return tuple(split for split in SPLITS if split in existing)

    @cached_property
    def held_out(self) -> dict[str, float]:
        """The fraction of the training images that each missing split gets, test first."""
        own = self._reader.splits
        fractions: dict[str, float] = {}
        if "train" in own and "test" not in own and self._options.test_fraction:
            fractions["test"] = self._options.test_fraction
        if "train" in own and "val" not in own:
            fractions["val"] = VALIDATION_FRACTION
        return fractions

    @property
    def division(self) -> tuple[int, Mapping[str, float]] | None:
        """What decides which images are held out, None where the source divides them itself."""
        return (self._options.split_seed, self.held_out) if self.held_out else None

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
        """Return one split as it was read, labeled by the FER+ rule and the groups of classes."""
        faces = self.raw(name)
        if self._options.ferplus is not None:
            faces = label_by_votes(faces, self._options.ferplus_rule)
        if self._target_of is None:
            return faces
        grouped = relabel(faces, self._target_of, self._grouped_classes)
        left_out = len(faces) - len(grouped)
        if left_out:
            self._on_note(
                f"{self.name}: {left_out} {name} images are left out, of classes that ``classes`` "
                "does not name"
            )
        return grouped

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

    @cached_property
    def _target_of(self) -> dict[str, str] | None:
        """The class to be of each of the source's own; None where they stay."""
        if self._options.groups is None:
            return None
        return resolve_groups(self._options.groups, self._own_classes)

    @property
    def _grouped_classes(self) -> tuple[str, ...]:
        if self._target_of is None:
            return self._own_classes
        names = name_classes(dict.fromkeys(self._options.groups or (), "``classes``"))
        return tuple(names.values())

    def _read(self, name: str) -> None:
        """Read a split; with the training images, whatever is held out of them."""
        if name in self._reader.splits and (name != "train" or not self.held_out):
            self._raw[name] = self._reader.read(name)
            return

        everything = self._reader.read("train")
        seed = self._options.split_seed
        masks = hold_out(everything, self.held_out, seed)
        is_held_out = np.zeros(len(everything), bool)
        for split, mask in masks.items():
            self._raw[split] = everything.subset(mask)
            is_held_out |= mask
            called = "validation" if split == "val" else split
            if mask.any():
                self._on_note(
                    f"{self.name}: no {called} split; {mask.sum()} of {len(everything)} training "
                    f"images are held out for it, {self.held_out[split]:.0%} of each class by "
                    f"``split_seed={seed}``"
                )
            else:
                self._on_note(
                    f"{self.name}: no {called} split, and too few images to hold any out for it"
                )
        self._raw["train"] = everything.subset(~is_held_out)

    def _fit(self, name: str) -> FaceDataset:
        labeled = self.labeled(name)
        # The raw split: a rule of FER+ may have dropped every image, which is another error.
        if not len(self.raw(name)):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}', and too few training images to "
                "hold any out for it",
                "two different images of a class are the least from which one is held out",
            )
        faces = relabel(labeled, match_classes(labeled.classes, self.classes), self.classes)
        self._note_dropped(name, len(labeled) - len(faces))
        if not len(faces):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}' show {', '.join(self.classes)}",
                f"its classes are: {', '.join(self._grouped_classes)}",
            )
        if name == "train":
            self._require_classes(faces)

        if self._options.votes is not None and name == "train":
            faces = self._with_votes(faces)
        size = faces.images.shape[-1]
        if self._options.size is not None and not self._options.keep_size:
            size = self._options.size
        soft_labels = faces.soft_labels
        return FaceDataset(
            images=pixels.fit_images(faces.images, size, self._options.channels),
            labels=torch.from_numpy(faces.labels),
            classes=faces.classes,
            split=name,
            digest=self.digest,
            soft_labels=None if soft_labels is None else torch.from_numpy(soft_labels),
        )

    def _with_votes(self, faces: RawSplit) -> RawSplit:
        """Return training images whose labels are mixed with the votes of FER+."""
        # Through the groups that were asked for, to the names of a model's classes.
        own = [name for name in FERPLUS_ORDER if name in self._own_classes]
        target_of = {name: name for name in own}
        if self._target_of is not None:
            target_of = {name: self._target_of[name] for name in own if name in self._target_of}
        meant = match_classes(target_of.values(), self.classes)
        class_of: dict[str, str] = {}
        for name, target in target_of.items():
            if target in meant:
                class_of[name] = meant[target]
        weight = self._options.votes_weight
        mixed = mix_votes(faces, class_of, weight)
        assert mixed.soft_labels is not None
        of_label = mixed.soft_labels[np.arange(len(mixed)), mixed.labels]
        changed = np.count_nonzero(of_label < 1)
        self._on_note(
            f"{self.name}: the votes have a weight of {weight:g} in the labels; they change those "
            f"of {changed:,} of {len(faces):,} training images"
        )
        return mixed

    def _note_dropped(self, name: str, count: int) -> None:
        if count:
            self._on_note(
                f"{self.name}: {count} {name} images of classes that the model lacks are left out"
            )

    def _require_classes(self, faces: RawSplit) -> None:
        """Raise FertoolError for training images without a class that the source should have."""
        if len(self._grouped_classes) == 1 and self._options.classes is None:
            raise FertoolError(
                f"{self.name}: all images are of one class, {faces.classes[0]}",
                "a classifier needs two: give the folder that holds the folders of all classes",
            )
        present = set(np.unique(faces.labels).tolist())
        missing: list[str] = []
        unknown: list[str] = []
        for k, name in enumerate(faces.classes):
            if k in present:
                continue
            # A source need not have every class of the model: only its own can be missing.
            if name in self._grouped_classes:
                missing.append(name)
            else:
                unknown.append(name)
        if missing:
            raise FertoolError(
                f"{self.name}: no training images of {', '.join(missing)}",
                "add some, or leave the class out with ``classes``: a model cannot learn a class "
                "that it never sees",
            )
        if unknown:
            self._on_note(f"{self.name}: has no class {', '.join(unknown)}, which the model knows")
