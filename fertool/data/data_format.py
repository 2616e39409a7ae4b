"""The interface of a format of data: detect it, and open a reader of what has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from fertool.data.decoding import image_suffixes
from fertool.data.folders import Listing, SkippedFiles
from fertool.data.image_tree import ImageTree
from fertool.data.options import DataOptions
from fertool.data.reader import Findings, Note, Reader
from fertool.errors import FertoolError

LAST = 100
"""Formats of other packages are tried after fertool's."""


class DataFormat(ABC):
    """A form in which data sets come; a member has no arguments.

    `prefix`: sources `PREFIX` and `PREFIX:…` are of this format, and no paths. `is_folder`: it is
    never a file. `detection_order`: formats with a lower one are tried first. `has_votes`: FER+
    votes can replace its labels.
    """

    prefix: ClassVar[str] = ""
    is_folder: ClassVar[bool] = False
    detection_order: ClassVar[int] = LAST
    has_votes: ClassVar[bool] = False

    def has_layout(self, path: Path) -> bool:
        """Return whether a file or folder is of this format for sure."""
        return False

    def may_have_layout(self, folder: Path, *, named: bool) -> bool:
        """Return whether a folder without sure signs can be of this format.

        `named` if the user names the format, else no format has sure signs of its own.
        """
        return False

    @abstractmethod
    def open(self, source: str, options: DataOptions, on_note: Note) -> Reader:
        """Open the file, folder or name that is of this format.

        `on_note` receives remarks about the data. Raises FertoolError for damaged data.
        """


class ImageFolders(DataFormat):
    """A format of image files in folders, or in the folder of a list."""

    is_folder = True

    @abstractmethod
    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """Return the classes and the images by split; `skipped` counts what is skipped.

        `folder` is a list's own path where the format is not `is_folder`.
        """

    def open(self, source: str, options: DataOptions, on_note: Note) -> ImageTree:
        """List the images of a folder or a list, and note what the listing skips."""
        path = Path(source)
        skipped = SkippedFiles()
        classes, listing = self.list_images(path, skipped)
        for folder, count in skipped.folders.items():
            on_note(
                f"{path}: left out, for it is not where images belong in this layout: {folder} "
                f"({count:,} images)"
            )
        for split, entries in listing.items():
            if not entries:
                on_note(f"{path}: the split '{split}' has no images")

        tree = ImageTree(
            path if path.is_dir() else path.parent,
            classes,
            listing,
            size=options.size,
            keep_size=options.keep_size,
            channels=options.channels,
            name=source,
            skipped=Findings(
                not_images=dict(skipped.not_images.most_common()), left_out=dict(skipped.folders)
            ),
            skip_unreadable=options.skip_unreadable,
            on_note=on_note,
        )
        if not tree.splits:
            raise FertoolError(
                f"{path}: no images found",
                f"image files end in {', '.join(sorted(image_suffixes()))}",
            )
        return tree
