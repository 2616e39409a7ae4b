"""The pictures of a source, one after the other: one in memory at a time."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fertool.data.decoding import LARGEST_FILE, decoded_image, decoded_stream
from fertool.errors import FertoolError
from fertool.faces.sources import Source
from fertool.faces.video import read_video
from fertool.reporter import SILENT, Reporter


@dataclass(frozen=True)
class Frame:
    """A picture, or one frame of a video; `number` counts from 0, `time_s` is its time stamp.

    `image` is upright, of mode L or RGB, and None where `error` tells why it could not be read;
    `hint` is what to do then.
    """

    source: Source
    number: int = 0
    time_s: float | None = None
    image: Image.Image | None = None
    error: str | None = None
    hint: str = ""


def read_frames(
    source: Source, every: int = 1, threads: int = 1, reporter: Reporter = SILENT
) -> Iterator[Frame]:
    """Yield the picture of a source, or every `every`-th frame of a video.

    What cannot be read is a frame with an error, the last one of a source. Remarks go to the
    `reporter`.
    """
    if source.kind == "missing":
        yield Frame(source, error=source.error, hint="check the path")
        return
    if source.is_video:
        yield from _frames_of_video(source, every, threads, reporter)
        return
    try:
        image = _read_picture(source, reporter)
    except FertoolError as error:
        yield Frame(source, error=_without_name(error.message, source), hint=error.hint)
        return
    yield Frame(source, image=image)


def _frames_of_video(
    source: Source, every: int, threads: int, reporter: Reporter
) -> Iterator[Frame]:
    number = -1
    try:
        for number, (time_s, image) in enumerate(read_video(source, every, threads, reporter)):
            # Skipped frames are counted all the same: `number` is that of the frame within the
            # video.
            if image is not None:
                yield Frame(source, number, time_s, image)
    except FertoolError as error:
        message = _without_name(error.message, source)
        yield Frame(source, number + 1, error=message, hint=error.hint)


def _read_picture(source: Source, reporter: Reporter) -> Image.Image:
    with warnings.catch_warnings():
        # What Pillow warns of is either handled or an error by our own limits.
        warnings.simplefilter("ignore")
        if source.kind == "stdin":
            content = io.BytesIO(_read_stdin())
            with decoded_stream(content, Path(source.name)) as decoded:
                return decoded.image
        with decoded_image(Path(source.name)) as decoded:
            if "first frame" in decoded.conversions:
                reporter.note(f"{source.name}: several pictures in one file, the first is taken")
            return decoded.image


def _read_stdin() -> bytes:
    # One byte more than is allowed tells that there is more, without reading it all.
    content = sys.stdin.buffer.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise FertoolError(
            f"stdin: more than {LARGEST_FILE:,} bytes", "give the name of a file, or a smaller one"
        )
    return content


def _without_name(message: str, source: Source) -> str:
    """Return a message without the name of the source, which stands beside it."""
    return message.removeprefix(f"{source.name}: ")
