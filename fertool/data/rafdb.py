"""RAF-DB, basic part: a list of file names and labels that count from 1, and aligned faces."""

from __future__ import annotations

from pathlib import Path

from fertool.data.folders import Listing, list_numbered_folders
from fertool.data.images import Entry
from fertool.data.labels import RAFDB_ORDER
from fertool.errors import FertoolError

# The release misspells "partition".
_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_LABELS = {str(number): expression for number, expression in enumerate(RAFDB_ORDER, start=1)}
_HINT = "a line is: train_00001.jpg 5, with a label from 1 (surprise) to 7 (neutral)"


def find_label_list(root: Path) -> Path | None:
    """Return the list of labels in a folder or its `EmoLabel`, if there is one."""
    for name in _LISTS:
        for path in (root / "EmoLabel" / name, root / name):
            if path.is_file():
                return path
    return None


def list_rafdb(root: Path) -> Listing:
    """List `EmoLabel/list_patition_label.txt` with `Image/aligned/*_aligned.jpg`, or the folders `train|test/1..7`.

    Raises FertoolError naming file and line for a row that is not as it should be.
    """
    label_list = find_label_list(root)
    if label_list is None:
        return list_numbered_folders(root, RAFDB_ORDER, first=1)
    listing: Listing = {"train": [], "test": []}
    with open(label_list, encoding="utf-8", errors="replace") as file:
        for line, row in enumerate(file, start=1):
            if not row.strip():
                continue
            name, _, label = row.strip().rpartition(" ")
            split = name.split("_")[0]
            if split not in listing or label not in _LABELS:
                raise FertoolError(f"{label_list}:{line}: '{row.strip()[:60]}' is not a name and a label", _HINT)
            listing[split].append(Entry(_aligned(root, name.strip()), _LABELS[label]))
    return listing


def _aligned(root: Path, name: str) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    return root / "Image" / "aligned" / f"{stem}_aligned{suffix}"
