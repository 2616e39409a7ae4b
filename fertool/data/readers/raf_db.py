"""RAF-DB, basic part: aligned faces, and a list of file names and labels that count from 1."""

from __future__ import annotations

from pathlib import Path

from fertool.data.data_format import ImageFolders
from fertool.data.folders import (
    Listing,
    SkippedFiles,
    find_file,
    has_numbered_folders,
    list_numbered_folders,
)
from fertool.data.image_batches import ImageEntry
from fertool.data.labels import RAFDB_ORDER, class_order
from fertool.data.text_files import read_text_lines, require_path_inside
from fertool.errors import FertoolError
from fertool.registry import READERS

# The release misspells "partition".
_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_LABELS = {str(number): expression for number, expression in enumerate(RAFDB_ORDER, start=1)}
_HINT = "a line is: train_00001.jpg 5, with a label from 1 (surprise) to 7 (neutral)"
_SHOWN = 60
"""Characters of a wrong line that an error shows."""


@READERS.register("raf-db")
class RafDb(ImageFolders):
    """RAF-DB with its list of labels, or folders 1 to 7."""

    detection_order = 1

    def has_layout(self, path: Path) -> bool:
        """Return whether there is a list of labels."""
        return find_label_list(path) is not None

    def may_have_layout(self, folder: Path, *, named: bool) -> bool:
        """Return whether there are numbered folders, which do not tell the data set."""
        return named and has_numbered_folders(folder)

    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """List the aligned images; the classes are the seven expressions."""
        return class_order(RAFDB_ORDER), list_rafdb(folder, skipped)


def find_label_list(root: Path) -> Path | None:
    """Return the path of the list of labels in a folder or its `EmoLabel`, if there is one."""
    # By name first: the misspelled list is the release's own.
    for name in _LISTS:
        for folder in (root / "EmoLabel", root):
            path = find_file(folder, name)
            if path is not None:
                return path
    return None


def list_rafdb(root: Path, skipped: SkippedFiles | None = None) -> Listing:
    """List the aligned images by the list of labels, or the folders `train|test/1..7` without one.

    The list is `EmoLabel/list_patition_label.txt`, the images are `Image/aligned/*_aligned.jpg`.
    Raises FertoolError naming file and line for a malformed row.
    """
    label_list = find_label_list(root)
    if label_list is None:
        return list_numbered_folders(root, RAFDB_ORDER, first=1, skipped=skipped)
    listing: Listing = {"train": [], "test": []}
    for line, row in enumerate(read_text_lines(label_list), start=1):
        if not row.strip():
            continue
        # A name may contain spaces: the label is the last word.
        name, label = ["", *row.rsplit(maxsplit=1)][-2:]
        split = name.split("_")[0]
        if split not in listing or label not in _LABELS:
            raise FertoolError(
                f"{label_list}:{line}: '{row.strip()[:_SHOWN]}' is not a name and a label", _HINT
            )
        require_path_inside(name, f"{label_list}:{line}")
        listing[split].append(ImageEntry(_aligned_image(root, name.strip()), _LABELS[label]))
    return listing


def _aligned_image(root: Path, name: str) -> Path:
    path = Path(name)
    return root / "Image" / "aligned" / f"{path.stem}_aligned{path.suffix}"
