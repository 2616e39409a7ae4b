"""Open any source of faces: detect its format, list its files, choose its reader."""

from __future__ import annotations

from pathlib import Path

from fertool.config.reading import named_format
from fertool.data.data_format import DataFormat, ImageFolders
from fertool.data.folders import Listing, SkippedFiles
from fertool.data.format_detection import detect_layout, find_layout, load_data_format
from fertool.data.options import DataOptions
from fertool.data.reader import Note, Reader
from fertool.data.source import DataSource
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
        name, found = _find_format(source, options.format)
        format = load_data_format(name)
        reader = _open_reader(found, name, format, options, on_note)
    except OSError as error:
        raise FertoolError(
            f"{error.filename or source}: {error.strerror}", "check ``data`` and its permissions"
        ) from None
    for name, file in (("ferplus", options.ferplus), ("votes", options.votes)):
        if file is not None and not format.has_votes:
            raise UsageError(
                f"``{name}``: its votes belong to fer2013.csv, not to {source}",
                f"leave ``{name}`` out",
            )
    return DataSource(reader, options, on_note)


def list_pictures(source: str, format: str | None) -> Listing:
    """Return the pictures of a folder by split, labeled, as files that nobody has cropped.

    Raises FertoolError for a source of an unknown layout, UsageError for one that has no files.
    """
    name, found = _find_format(source, format)
    member = load_data_format(name)
    if not isinstance(member, ImageFolders):
        raise UsageError(
            f"``detect``: {source} holds crops, no photographs",
            "give a folder of photographs, or leave ``detect`` out",
        )
    _, listing = member.list_images(Path(found), SkippedFiles())
    return {split: entries for split, entries in listing.items() if entries}


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


def _open_reader(
    source: str, name: str, format: DataFormat, options: DataOptions, on_note: Note
) -> Reader:
    if format.prefix:
        return format.open(source, options, on_note)
    path = Path(source)
    if format.is_folder and not path.is_dir():
        raise FertoolError(
            f"{path}: is a file, but the format {name} is a folder", "give the folder as ``data``"
        )
    return format.open(source, options, on_note)


def _find_format(source: str, name: str | None) -> tuple[str, str]:
    """Return the format of a source, and the source itself or the path inside that has it."""
    name = name or named_format(source)
    if name is not None and load_data_format(name).prefix:
        return name, source
    # Before the detection, which would call a missing folder one of an unknown layout.
    path = Path(source)
    if not path.exists():
        raise FertoolError(
            f"{source}: no such file or folder", "check ``data``; 'synth' draws faces instead"
        )
    if name is None:
        name, path = detect_layout(path)
    else:
        path = find_layout(path, load_data_format(name))
    return name, str(path)
