"""Open any source of faces: detect its format, list its files, choose its reader."""

from __future__ import annotations

from pathlib import Path

from fertool.data import affectnet, fer2013, folders, rafdb, synth
from fertool.data.decoding import image_suffixes
from fertool.data.image_tree import ImageTree
from fertool.data.labels import RAFDB_ORDER, in_canonical_order
from fertool.data.layouts import detect_layout, find_fer2013_csv, find_layout
from fertool.data.options import DataOptions
from fertool.data.reader import Findings, Reader
from fertool.data.source import DataSource, Note
from fertool.errors import FertoolError, UsageError


def open_data(
    source: str, options: DataOptions, *, on_note: Note = lambda note: None
) -> DataSource:
    """Open `synth`, `synth:COUNT`, a fer2013.csv or a folder; its format is detected unless given.

    `on_note` receives remarks about the data, each once. Raises FertoolError for a source that is
    missing, of an unknown layout, or damaged.
    """
    on_note = _without_repeats(on_note)
    try:
        reader = _open_reader(source, options, on_note)
    except OSError as error:
        raise FertoolError(
            f"{error.filename or source}: {error.strerror}", "check ``data`` and its permissions"
        ) from None
    _require_votes_fit(source, reader, options)
    return DataSource(reader, options, on_note)


def _require_votes_fit(source: str, reader: Reader, options: DataOptions) -> None:
    """Raise UsageError for FER+ votes of another source than fer2013.csv."""
    if options.ferplus is not None and not isinstance(reader, fer2013.Fer2013):
        raise UsageError(
            f"``ferplus``: its votes belong to fer2013.csv, not to {source}",
            "leave ``ferplus`` out",
        )


def _without_repeats(on_note: Note) -> Note:
    """Return a function that forwards each note only the first time.

    Several steps may find the cache folder read-only.
    """
    seen: set[str] = set()

    def note(text: str) -> None:
        if text not in seen:
            seen.add(text)
            on_note(text)

    return note


def _open_reader(source: str, options: DataOptions, on_note: Note) -> Reader:
    detects_synth = options.format is None and synth.is_synth(source)
    if options.format == "synth" or detects_synth:
        return synth.open_synth(source, options.seed, options.size, on_note)

    # Before the detection, which would call a missing folder one of an unknown layout.
    path = Path(source)
    if not path.exists():
        raise FertoolError(
            f"{source}: no such file or folder", "check ``data``; 'synth' draws faces instead"
        )
    if options.format is None:
        format, path = detect_layout(path)
    else:
        format, path = options.format, find_layout(path, options.format)

    if format == "fer2013":
        if path.is_dir():
            path = find_fer2013_csv(path) or path / "fer2013.csv"
        return fer2013.open_fer2013(path, options.ferplus, on_note)
    if not path.is_dir():
        raise FertoolError(
            f"{path}: is a file, but the format {format} is a folder", "give the folder as ``data``"
        )
    return _open_tree(path, format, options, on_note)


def _open_tree(path: Path, format: str, options: DataOptions, on_note: Note) -> ImageTree:
    """List the images of a folder of a known layout, and note what the listing skips."""
    skipped = folders.SkippedFiles()
    if format == "raf-db":
        classes = in_canonical_order(frozenset(RAFDB_ORDER))
        listing = rafdb.list_rafdb(path, skipped)
    elif format == "affectnet":
        classes, listing = affectnet.list_affectnet(path, skipped)
    else:
        classes, listing = folders.list_class_folders(path, skipped)

    for folder, count in skipped.folders.items():
        on_note(
            f"{path}: left out, for it is not where images belong in this layout: {folder} "
            f"({count:,} images)"
        )
    for split, entries in listing.items():
        if not entries:
            on_note(f"{path}: the split '{split}' has no images")

    tree = ImageTree(
        path,
        classes,
        listing,
        size=options.size,
        channels=options.channels,
        skipped=Findings(
            not_images=dict(skipped.not_images.most_common()), left_out=dict(skipped.folders)
        ),
        on_note=on_note,
    )
    if not tree.splits:
        raise FertoolError(
            f"{path}: no images found", f"image files end in {', '.join(sorted(image_suffixes()))}"
        )
    return tree
