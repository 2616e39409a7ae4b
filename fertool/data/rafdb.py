"""RAF-DB, basic part: a list of file names and labels that count from 1, and aligned faces."""

from __future__ import annotations

from pathlib import Path

from fertool.data.folders import Listing, Skipped, find_file, list_numbered_folders
from fertool.data.images import Entry
from fertool.data.labels import RAFDB_ORDER
from fertool.data.lines import read_text_lines, require_path_inside
from fertool.errors import FertoolError

# The release misspells "partition".
_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_LABELS = {str(number): expression for number, expression in enumerate(RAFDB_ORDER, start=1)}
_HINT = "a line is: train_00001.jpg 5, with a label from 1 (surprise) to 7 (neutral)"


def find_label_list(root: Path) -> Path | None:
    """Return the list of labels in a folder or its `EmoLabel`, if there is one."""
    for name in _LISTS:
        for folder in (root / "EmoLabel", root):
            path = find_file(folder, name)
            if path is not None:
                return path
    return None


def list_rafdb(root: Path, skipped: Skipped | None = None) -> Listing:
    """List `EmoLabel/list_patition_label.txt` with `Image/aligned/*_aligned.jpg`, or the folders `train|test/1..7`.

    Raises FertoolError naming file and line for a row that is not as it should be.
    """
    label_list = find_label_list(root)
    if label_list is None:
        return list_numbered_folders(root, RAFDB_ORDER, first=1, skipped=skipped)
    listing: Listing = {"train": [], "test": []}
    for line, row in enumerate(read_text_lines(label_list), start=1):
        if not row.strip():
            continue
        name, label = ["", *row.rsplit(maxsplit=1)][-2:]
        split = name.split("_")[0]
        if split not in listing or label not in _LABELS:
            raise FertoolError(
                f"{label_list}:{line}: '{row.strip()[:60]}' is not a name and a label", _HINT
            )
        require_path_inside(name, f"{label_list}:{line}")
        listing[split].append(Entry(_aligned(root, name.strip()), _LABELS[label]))
    return listing


def _aligned(root: Path, name: str) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    return root / "Image" / "aligned" / f"{stem}_aligned{suffix}"
