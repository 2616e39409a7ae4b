"""Open any source of faces by looking at it, and fit what it holds to a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fertool.data import affectnet, fer2013, folders, pixels, rafdb, synth
from fertool.data.copies import distinct_from, hold_out
from fertool.data.dataset import FaceDataset
from fertool.data.decoding import image_suffixes
from fertool.data.faces import SPLITS, Faces, Findings, Reader
from fertool.data.ferplus import RULES, label_by_votes
from fertool.data.images import ImageTree
from fertool.data.labels import (
    FERPLUS_ORDER,
    RAFDB_ORDER,
    canonical_expression,
    find_expression,
    in_canonical_order,
)
from fertool.errors import FertoolError, UsageError, unknown_name

FORMATS = ("fer2013", "folders", "raf-db", "affectnet", "synth")

VALIDATION_SHARE = 0.1
"""What is held out of the training images of a source that comes without a validation split."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class DataOptions:
    """How to read a source.

    `format`: one of `FORMATS`, None to find out. `ferplus`: fer2013new.csv, whose votes replace the labels by
    `ferplus_rule`. `size`, `channels`: what the images become; size None keeps theirs. `classes`: a model's classes,
    in its order; images of others are dropped; None takes the source's own. `seed`: of drawn faces only.
    """

    format: str | None = None
    ferplus: Path | None = None
    ferplus_rule: str = "majority"
    size: int | None = None
    channels: int = 1
    classes: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise unknown_name("--format", self.format, FORMATS)
        if self.ferplus_rule not in RULES:
            raise unknown_name("--ferplus-rule", self.ferplus_rule, RULES)
        if self.size is not None and self.size < 1:
            raise UsageError(
                f"image size {self.size} is not positive", "give the side of the images in pixels"
            )
        if self.channels not in (1, 3):
            raise UsageError(
                f"{self.channels} channels: images have 1 (gray) or 3 (RGB)", "use 1 or 3"
            )
        meant = Counter(find_expression(name) or name for name in self.classes or ())
        if repeated := [name for name, count in meant.items() if count > 1]:
            raise UsageError(
                f"two of the model's classes mean '{repeated[0]}'",
                "name each class once, in output order",
            )


class DataSource:
    """A source fitted to a model: `split` gives the data sets, made once each and kept."""

    def __init__(self, reader: Reader, options: DataOptions, on_note: Note) -> None:
        self.name = reader.name
        self._reader = reader
        self._options = options
        self._on_note = on_note
        self._raw: dict[str, Faces] = {}
        self._fitted: dict[str, FaceDataset] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the content that was read, hexadecimal."""
        return self._reader.digest

    @property
    def findings(self) -> Findings:
        """What was converted in the splits that were read, and what was passed over."""
        return self._reader.findings

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of every split: those asked for, else the source's own."""
        if self._options.classes is not None:
            return tuple(
                canonical_expression(name, "the model's classes") for name in self._options.classes
            )
        return self._own_classes

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that exist; `val` always does where `train` does."""
        own = self._reader.splits
        return tuple(s for s in SPLITS if s in own or (s == "val" and "train" in own))

    def split(self, name: str) -> FaceDataset:
        """Return one split, fitted to the options.

        Raises FertoolError when it has no images, or when training images lack a class that the source should have.
        """
        if name not in self._fitted:
            self._fitted[name] = self._fit(name)
        return self._fitted[name]

    def raw(self, name: str) -> Faces:
        """Return one split as it was found, with all its images; raises FertoolError when there are none."""
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

    def labelled(self, name: str) -> Faces:
        """Return one split as it was found, labelled by the FER+ rule where there are votes."""
        faces = self.raw(name)
        return faces if faces.votes is None else label_by_votes(faces, self._options.ferplus_rule)

    def distinct_from(self, split: str, other: str) -> Tensor:
        """Return bool [N]: which images of `split` are not exact copies of an image in `other`."""
        return torch.from_numpy(
            distinct_from(self.split(split).images.numpy(), self.split(other).images.numpy())
        )

    def val_copies_of_test(self) -> int:
        """Count the validation images that are exact copies of test images; 0 unless the source has both splits."""
        if not {"val", "test"} <= set(self._reader.splits):
            return 0
        val, test = (self.raw(name).images for name in ("val", "test"))
        return len(val) - int(distinct_from(val, test).sum())

    @property
    def _own_classes(self) -> tuple[str, ...]:
        if self._options.ferplus is not None:
            return in_canonical_order(frozenset(FERPLUS_ORDER))
        return in_canonical_order(frozenset(self._reader.classes))

    def _read(self, name: str) -> None:
        own = self._reader.splits
        if name in own and (name != "train" or "val" in own):
            self._raw[name] = self._reader.read(name)
            return
        everything = self._reader.read("train")
        held_out = hold_out(everything, VALIDATION_SHARE)
        self._raw["train"], self._raw["val"] = (
            everything.subset(~held_out),
            everything.subset(held_out),
        )
        if not held_out.any():
            self._on_note(
                f"{self.name}: no validation split, and too few images to hold any out for it"
            )
            return
        share = f"{held_out.sum()} of {len(everything)} training images"
        self._on_note(f"{self.name}: no validation split; {share} are held out for it")

    def _fit(self, name: str) -> FaceDataset:
        labelled = self.labelled(name)
        if not len(self.raw(name)):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}', and too few training images to hold any out for it",
                "two different images of a class are the least from which one is held out",
            )
        faces = _map_classes(labelled, self.classes)
        if dropped := len(labelled) - len(faces):
            self._on_note(
                f"{self.name}: {dropped} {name} images of classes that the model lacks are left out"
            )
        if not len(faces):
            raise FertoolError(
                f"{self.name}: no images in the split '{name}' show {', '.join(self.classes)}",
                f"its classes are: {', '.join(self._own_classes)}",
            )
        if name == "train":
            self._require_classes(faces)
        size = self._options.size or faces.images.shape[-1]
        return FaceDataset(
            images=pixels.fitted(faces.images, size, self._options.channels),
            labels=torch.from_numpy(faces.labels),
            classes=faces.classes,
            split=name,
            digest=self.digest,
            soft_labels=None if faces.soft_labels is None else torch.from_numpy(faces.soft_labels),
        )

    def _require_classes(self, faces: Faces) -> None:
        present = set(np.unique(faces.labels).tolist())
        absent = [c for k, c in enumerate(faces.classes) if k not in present]
        if missing := [c for c in absent if c in self._own_classes]:
            raise FertoolError(
                f"{self.name}: no training images of {', '.join(missing)}",
                "add some: a model cannot learn a class that it never sees",
            )
        if absent:
            self._on_note(f"{self.name}: has no class {', '.join(absent)}, which the model knows")


def open_data(
    source: str, options: DataOptions, *, on_note: Note = lambda note: None
) -> DataSource:
    """Open `synth`, `synth:COUNT`, a fer2013.csv or a folder; the layout is found by looking unless options say it.

    Raises FertoolError for a source that is missing, of no known layout, or damaged.
    """
    on_note = _once(on_note)
    try:
        reader = _reader(source, options, on_note)
    except OSError as error:
        raise FertoolError(
            f"{error.filename or source}: {error.strerror}", "check --data and its permissions"
        ) from None
    if options.ferplus is not None and not isinstance(reader, fer2013.Fer2013):
        raise UsageError(
            f"--ferplus: its votes belong to fer2013.csv, not to {source}", "leave --ferplus out"
        )
    return DataSource(reader, options, on_note)


def _once(on_note: Note) -> Note:
    """Pass each note on only the first time: several steps may find the same cache folder read-only."""
    said: set[str] = set()

    def note(text: str) -> None:
        if text not in said:
            said.add(text)
            on_note(text)

    return note


def _reader(source: str, options: DataOptions, on_note: Note) -> Reader:
    if options.format == "synth" or (options.format is None and synth.is_synth(source)):
        return synth.open_synth(source, options.seed, options.size, on_note)
    path = Path(source)
    if not path.exists():
        raise FertoolError(
            f"{source}: no such file or folder", "check --data; 'synth' draws faces instead"
        )
    kind, path = (
        _detect(path) if options.format is None else (options.format, _inner(path, options.format))
    )
    if kind == "fer2013":
        csv = (_csv_in(path) or path / "fer2013.csv") if path.is_dir() else path
        return fer2013.open_fer2013(csv, options.ferplus, on_note)
    if not path.is_dir():
        raise FertoolError(
            f"{path}: is a file, but the format {kind} is a folder", "give the folder as --data"
        )
    return _open_tree(path, kind, options, on_note)


def _open_tree(path: Path, kind: str, options: DataOptions, on_note: Note) -> ImageTree:
    """List the images of a folder of a known layout; what the listing passes over is told."""
    skipped = folders.Skipped()
    if kind == "raf-db":
        classes, listing = (
            in_canonical_order(frozenset(RAFDB_ORDER)),
            rafdb.list_rafdb(path, skipped),
        )
    elif kind == "affectnet":
        classes, listing = affectnet.list_affectnet(path, skipped)
    else:
        classes, listing = folders.list_class_folders(path, skipped)
    for place, count in skipped.folders.items():
        on_note(
            f"{path}: left out, for it is not where images belong in this layout: {place} ({count:,} images)"
        )
    for split, entries in listing.items():
        if not entries:
            on_note(f"{path}: the split '{split}' has no images")
    findings = Findings(
        not_images=dict(skipped.not_images.most_common()), left_out=dict(skipped.folders)
    )
    tree = ImageTree(
        path,
        classes,
        listing,
        size=options.size,
        channels=options.channels,
        skipped=findings,
        on_note=on_note,
    )
    if not tree.splits:
        raise FertoolError(
            f"{path}: no images found", f"image files end in {', '.join(sorted(image_suffixes()))}"
        )
    return tree


def _is_raf_db(folder: Path) -> bool:
    return rafdb.find_label_list(folder) is not None


def _is_affectnet(folder: Path) -> bool:
    return bool(affectnet.find_lists(folder)) or affectnet.has_annotations(folder)


def _is_fer2013(folder: Path) -> bool:
    return _csv_in(folder) is not None


_LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "raf-db": _is_raf_db,
    "affectnet": _is_affectnet,
    "folders": folders.is_class_tree,
    "fer2013": _is_fer2013,
}
"""How a folder of each format is told, in the order in which they are tried."""


def _detect(path: Path) -> tuple[str, Path]:
    """Return the format of a source, and the file or the folder, maybe inside of wrappers, that has it."""
    if path.is_file() and fer2013.is_fer2013(path):
        return "fer2013", path
    if path.is_dir():
        for folder in folders.unwrapped(path):
            for kind, is_kind in _LAYOUTS.items():
                if is_kind(folder):
                    return kind, folder
            if folders.split_folders(folder) and not folders.has_numbered_folders(folder):
                # Splits of unknown classes: the listing says which folder is no expression.
                return "folders", folder
    raise FertoolError(
        f"{path}: not a layout that fertool knows{_contents(path)}",
        "known: fer2013.csv, train|test/<expression>/, RAF-DB, AffectNet; numbered class folders need --format",
    )


def _inner(path: Path, kind: str) -> Path:
    """Return the folder of a layout that somebody named, maybe inside of wrappers; else the path itself."""
    if not path.is_dir() or kind not in _LAYOUTS:
        return path
    is_numbered = (
        folders.has_numbered_folders if kind in ("raf-db", "affectnet") else _LAYOUTS[kind]
    )
    found = (
        folder
        for folder in folders.unwrapped(path)
        if _LAYOUTS[kind](folder) or is_numbered(folder)
    )
    return next(found, path)


def _contents(path: Path) -> str:
    """Return the names of a few folders of a layout that is not known, in parentheses."""
    if not path.is_dir():
        return ""
    parts = folders.split_folders(path)
    inside = next(iter(parts.values()), path)
    names = [folder.name for folder in folders.subfolders(inside)]
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    whose = f"the folders of {inside.name}" if parts else "its folders"
    return f": {whose} ({listed}) are neither splits nor expressions" if names else ""


def _csv_in(folder: Path) -> Path | None:
    """Return the CSV of a usual name in a folder, if there is one."""
    found = (folders.find_file(folder, name) for name in ("fer2013.csv", "icml_face_data.csv"))
    return next((path for path in found if path is not None), None)


def _map_classes(faces: Faces, classes: tuple[str, ...]) -> Faces:
    """Bring labels into the order of `classes`, by name; images of other classes are dropped."""
    index = np.array(
        [classes.index(name) if name in classes else -1 for name in faces.classes], np.int64
    )
    faces = replace(faces, labels=index[faces.labels], classes=classes)
    if faces.soft_labels is not None:
        soft = np.zeros((len(faces), len(classes)), np.float32)
        soft[:, index[index >= 0]] = faces.soft_labels[:, index >= 0]
        faces = replace(faces, soft_labels=soft)
    faces = faces.subset(faces.labels >= 0)
    if faces.soft_labels is not None:
        faces = replace(
            faces, soft_labels=faces.soft_labels / faces.soft_labels.sum(axis=1, keepdims=True)
        )
    return faces
