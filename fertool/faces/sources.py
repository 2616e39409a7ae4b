"""What a user names as a source: pictures, folders, patterns, videos, cameras, streams, stdin."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from fertool.data.decoding import HEIC_SUFFIXES, image_suffixes

Kind = Literal["picture", "video", "live", "stdin", "missing"]

STDIN = "-"
_PATTERN_SIGNS = "*?["
_CAMERA = "camera:"
_STREAM_SCHEMES = ("rtsp://", "rtsps://")
_VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".webm",
        ".wmv",
        ".y4m",
    ]
)


@dataclass(frozen=True)
class Source:
    """One picture, video or stream; `name` is what results call it.

    `place` is where what is made of it belongs in an output folder: the path within the folder that
    was named. `address` is that of a stream, which may hold a password that no result repeats.
    `error` tells why there is nothing to read, for the kind "missing".
    """

    kind: Kind
    name: str
    place: PurePath
    error: str = ""
    address: str = ""

    @property
    def is_video(self) -> bool:
        """Whether it has frames with times."""
        return self.kind in ("video", "live")


def list_sources(named: Sequence[str], outputs: Iterable[Path] = ()) -> list[Source]:
    """Return all pictures and videos that are named, in the order of the names.

    Folders are walked in the order of their paths, without `outputs`, which may lie in them. What
    does not exist, or has nothing to look at, is in the list as "missing".
    """
    excluded = {_identity(path) for path in outputs if path.exists()}
    sources: list[Source] = []
    for name in named:
        sources += _named(name, excluded)
    return sources


def _named(name: str, excluded: set[tuple[int, int]]) -> list[Source]:
    if name == STDIN:
        return [Source("stdin", "stdin", PurePath("stdin"))]
    if name.startswith(_CAMERA):
        return [Source("live", name, PurePath(name.replace(":", "-").replace("/", "-")))]
    if name.startswith(_STREAM_SCHEMES):
        # Results are passed on and published; the address is needed for opening alone.
        return [Source("live", _without_password(name), PurePath("stream"), address=name)]
    path = Path(name)
    try:
        if path.is_dir():
            return _in_folder(path, excluded)
        if path.exists():
            return [_file(path, PurePath(path.name))]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return [_missing(name, f"cannot be read ({reason})")]
    # After the look for a file of this very name: brackets are common in names of photos.
    if any(sign in name for sign in _PATTERN_SIGNS):
        return _matching(name)
    return [_missing(name, "no such file or folder")]


def _without_password(address: str) -> str:
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _matching(pattern: str) -> list[Source]:
    sources: list[Source] = []
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if path.is_dir():
            # `**` names every folder beside what is in it, and `*` those that nobody asked for.
            continue
        if _kind_by_suffix(path) is not None:
            sources.append(_file(path, PurePath(path.name)))
    return sources or [_missing(pattern, "no picture or video matches")]


def _in_folder(root: Path, excluded: set[tuple[int, int]]) -> list[Source]:
    sources: list[Source] = []
    closed: list[Source] = []
    for path in sorted(_walk(root, excluded, closed)):
        if _kind_by_suffix(path) is not None:
            sources.append(_file(path, PurePath(path.relative_to(root))))
    sources += closed
    return sources or [_missing(str(root), "no pictures or videos in this folder")]


def _walk(root: Path, excluded: set[tuple[int, int]], closed: list[Source]) -> Iterator[Path]:
    """Yield the visible files at any depth inside a folder, each folder once.

    Folders that cannot be read are added to `closed`.
    """
    # Links may lead to a folder more than once, or back to one above.
    entered = set(excluded)
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        identity = _identity(folder)
        if identity in entered:
            continue
        entered.add(identity)
        try:
            inside = list(folder.iterdir())
        except OSError as error:
            closed.append(_missing(str(folder), f"cannot be read ({error.strerror})"))
            continue
        for path in inside:
            # "__MACOSX" and the like are put beside pictures by programs that pack archives.
            if path.name.startswith((".", "__")):
                continue
            if path.is_dir():
                waiting.append(path)
            else:
                yield path


def _identity(path: Path) -> tuple[int, int]:
    # Device and inode, since one folder can have several paths by links and mounts.
    state = path.stat()
    return state.st_dev, state.st_ino


def _file(path: Path, place: PurePath) -> Source:
    return Source(_kind_by_suffix(path) or "picture", str(path), place)


def _missing(name: str, error: str) -> Source:
    return Source("missing", name, PurePath("missing"), error)


def _kind_by_suffix(path: Path) -> Kind | None:
    suffix = path.suffix.lower()
    if suffix in _VIDEO_SUFFIXES:
        return "video"
    # HEIC also where it cannot be decoded: the error says what to install.
    if suffix in image_suffixes() or suffix in HEIC_SUFFIXES:
        return "picture"
    return None
