"""Videos, cameras and streams by PyAV: every frame with its own time stamp."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from fertool.errors import FertoolError
from fertool.faces.sources import Source
from fertool.reporter import Reporter

TimedImage = tuple[float | None, Image.Image | None]
_STALLED_S = 10.0
"""How long a stream may give nothing."""
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
"""How FFmpeg opens a camera: its format, and the camera's name by what stands behind `camera:`."""
_MISSED = 1.5
"""Of a live source: a gap between frames of so many usual ones means that some were lost."""


def import_av() -> Any:
    """Return the module `av`; raises FertoolError where PyAV is not installed."""
    try:
        import av
    except ImportError:
        raise FertoolError(
            "videos, cameras and streams need PyAV", "pip install 'fertool[video]'"
        ) from None
    # Its messages arrive as exceptions.
    av.logging.set_level(av.logging.PANIC)
    return av


def read_video(
    source: Source, every: int, threads: int, reporter: Reporter
) -> Iterator[TimedImage]:
    """Yield all frames in order: the time stamp in seconds, and the upright RGB image.

    The image of a frame that `every` skips is None. Times are the file's own, from its first frame;
    None where it has none. Raises FertoolError for what is no video, has none in it, or ends in the
    middle.
    """
    av = import_av()
    count = 0
    try:
        with _opened(av, source) as container:
            if not container.streams.video:
                raise FertoolError(f"{source.name}: no pictures in it, sound only", "give a video")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = threads
            # A live stream starts its time anywhere, for example at the camera's own start.
            clock = _Clock(stream)
            try:
                for frame in container.decode(stream):
                    time_s = clock.time_s(frame)
                    image = None
                    # Decoding cannot be skipped, but the conversion to RGB can.
                    if count % every == 0:
                        image = _upright(frame)
                    yield time_s, image
                    count += 1
            finally:
                # Also when the user ends it, which is the usual end of a camera.
                if source.kind == "live" and clock.lost:
                    reporter.note(f"{source.name}: about {clock.lost} frames were lost on the way")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(source, count, error) from None
    if count == 0:
        raise FertoolError(f"{source.name}: a video without frames", "copy the file again")


@contextmanager
def _opened(av: Any, source: Source) -> Iterator[Any]:
    limits = (_STALLED_S, _STALLED_S)
    if source.name.startswith("camera:"):
        if sys.platform not in _CAMERAS:
            raise FertoolError(f"{source.name}: no cameras on {sys.platform}", "give a file")
        format, pattern = _CAMERAS[sys.platform]
        camera = pattern.format(source.name.removeprefix("camera:"))
        with av.open(camera, format=format, timeout=limits) as container:
            yield container
    elif source.kind == "live":
        # Over TCP, since lost packets leave gray smears in the pictures.
        options = {"rtsp_transport": "tcp"}
        with av.open(source.address, options=options, timeout=limits) as container:
            yield container
    else:
        # As a file of Python: FFmpeg would take a colon in the name for a protocol.
        with (
            open(source.name, "rb") as file,
            av.open(file, metadata_errors="replace") as container,
        ):
            yield container


class _Clock:
    """The time stamps of a stream, from 0 at its first frame, and how many frames it has lost."""

    def __init__(self, stream: Any) -> None:
        self._rate = float(stream.average_rate or 0)
        self._first: float | None = None
        self._last: float | None = None
        self.lost = 0

    def time_s(self, frame: Any) -> float | None:
        """Return the time of a frame in seconds."""
        if frame.time is None:
            return None
        time_s = float(frame.time)
        if self._first is None or self._last is None:
            self._first = time_s
        else:
            gap = (time_s - self._last) * self._rate
            if gap > _MISSED:
                self.lost += round(gap) - 1
        self._last = time_s
        return time_s - self._first


def _upright(frame: Any) -> Image.Image:
    """Return a frame as an RGB image, turned as its display matrix says."""
    pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    # Phones store every film as the sensor lies, and say in a matrix how it was held.
    if quarter_turns:
        pixels = np.ascontiguousarray(np.rot90(pixels, quarter_turns))
    return Image.fromarray(pixels)


def _unreadable(source: Source, count: int, error: Exception) -> FertoolError:
    reason = getattr(error, "strerror", None) or str(error)
    # FFmpeg ends a read that took too long by its interrupt, which PyAV raises as ExitError.
    if isinstance(error, TimeoutError) or type(error).__name__ == "ExitError":
        return FertoolError(
            f"{source.name}: nothing for {_STALLED_S:g} s", "is the camera or its network down?"
        )
    if count:
        return FertoolError(
            f"{source.name}: damaged after {count} frames ({reason})", "copy the file again"
        )
    if source.kind == "live":
        return FertoolError(
            f"{source.name}: cannot be opened ({reason})",
            "is it connected, allowed, and not in use by another program?",
        )
    return FertoolError(f"{source.name}: not a readable video ({reason})", "copy the file again")
