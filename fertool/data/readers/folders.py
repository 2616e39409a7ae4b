"""Folders named after classes."""

from __future__ import annotations

from pathlib import Path

from fertool.data.data_format import ImageFolders
from fertool.data.folders import (
    Listing,
    SkippedFiles,
    has_class_folders,
    has_numbered_folders,
    is_expression_tree,
    list_class_folders,
)
from fertool.registry import READERS


@READERS.register("folders")
class ClassFolders(ImageFolders):
    """Images by class, train|val|test/<class>/ or <class>/ alone."""

    # Lists of labels are surer signs than names of folders.
    detection_order = 4

    def has_layout(self, path: Path) -> bool:
        """Return whether there are folders named after expressions."""
        return is_expression_tree(path)

    def may_have_layout(self, folder: Path, *, named: bool) -> bool:
        """Return whether there are folders of images.

        The names of numbered ones could also be RAF-DB's or AffectNet's, which count differently.
        """
        is_ambiguous = not named and has_numbered_folders(folder)
        return has_class_folders(folder) and not is_ambiguous

    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """List the images by the names of their folders."""
        return list_class_folders(folder, skipped)
