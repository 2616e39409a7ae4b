"""A list of image files and their classes."""

from __future__ import annotations

from pathlib import Path

from fertool.data.data_format import ImageFolders
from fertool.data.folders import Listing, SkippedFiles, find_file
from fertool.data.label_list import find_list_form, list_labeled_images
from fertool.registry import READERS

_FILE_NAMES = ("labels.csv", "labels.tsv", "labels.txt")


@READERS.register("list")
class LabelList(ImageFolders):
    """A file of paths and labels, path,label[,split][,x,y,w,h], or a folder with labels.csv."""

    is_folder = False
    detection_order = 3

    def has_layout(self, path: Path) -> bool:
        """Return whether the first lines of a file, or of labels.csv in a folder, are such rows."""
        label_list = _label_list(path)
        return label_list is not None and find_list_form(label_list) is not None

    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """List the images by the rows of the list."""
        return list_labeled_images(_label_list(folder) or folder / _FILE_NAMES[0])


def _label_list(path: Path) -> Path | None:
    """Return the list that a path is or has, if there is one."""
    if path.is_file():
        return path
    for name in _FILE_NAMES:
        found = find_file(path, name)
        if found is not None:
            return found
    return None
