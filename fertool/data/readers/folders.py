"""Folders named after expressions."""

from __future__ import annotations

from pathlib import Path

from fertool.data.data_format import ImageFolders
from fertool.data.folders import (
    Listing,
    SkippedFiles,
    has_numbered_folders,
    is_class_tree,
    list_class_folders,
    split_folders,
)
from fertool.registry import READERS


@READERS.register("folders")
class ClassFolders(ImageFolders):
    """Images by class, train|val|test/<expression>/ or <expression>/ alone."""

    # Lists of labels are surer signs than names of folders.
    detection_order = 3

    def has_layout(self, path: Path) -> bool:
        """Return whether there are folders named after expressions."""
        return is_class_tree(path)

    def may_have_layout(self, folder: Path, *, named: bool) -> bool:
        """Return whether a folder has splits of unknown classes."""
        # The listing raises the error that names the first one.
        return not named and bool(split_folders(folder)) and not has_numbered_folders(folder)

    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """List the images by the names of their folders."""
        return list_class_folders(folder, skipped)
