"""Write frames with their time stamps as an H.264 video that browsers and phones play."""

from __future__ import annotations

from fractions import Fraction
from io import BufferedWriter
from typing import Any

import numpy as np
from PIL import Image

from fertool.errors import FertoolError
from fertool.faces.video import import_av

_TICKS_PER_S = 90_000
"""Of MPEG: fine enough for any rate of frames."""
_NOMINAL_RATE = 30
"""What the container says; each frame has its own time."""


class VideoWriter:
    """An MP4 in an open file; `close` makes it a whole one, whatever was written until then."""

    def __init__(self, file: BufferedWriter, size: tuple[int, int], threads: int) -> None:
        av = import_av()
        self._av = av
        width, height = size
        # Colors are stored for 2 x 2 pixels.
        self._size = (width + width % 2, height + height % 2)
        # Not through the file's own buffer: that one looks for Ctrl-C when it writes, and to FFmpeg
        # the exception is a disk that failed. It has a buffer itself.
        self._container = av.open(file.raw, "w", format="mp4")
        try:
            options = {"preset": "veryfast", "crf": "23"}
            self._stream: Any = self._container.add_stream(
                "libx264", rate=_NOMINAL_RATE, options=options
            )
        except (av.FFmpegError, ValueError):
            raise FertoolError(
                "this PyAV writes no H.264", "take the one of pip install 'fertool[video]'"
            ) from None
        self._stream.width, self._stream.height = self._size
        # Most browsers and phones decode H.264 with halved colors only.
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        self._stream.codec_context.thread_count = threads
        # PyAV does it with the first packet otherwise, in Python code.
        self._container.start_encoding()
        self._last = -1

    def write(self, image: Image.Image, time_s: float) -> None:
        """Add an RGB image at a time that is later than that of the last one."""
        if image.size != self._size:
            image = self._fitted(image)
        frame = self._av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        # The encoder refuses a time that does not rise, and those of a stream may repeat or step
        # back.
        self._last = max(round(time_s * _TICKS_PER_S), self._last + 1)
        frame.pts = self._last
        frame.time_base = Fraction(1, _TICKS_PER_S)
        self._encode(frame)

    def close(self) -> None:
        """Write what is still in the encoder, and the index."""
        if self._last >= 0:
            self._encode(None)
        self._container.close()

    def _encode(self, frame: Any) -> None:
        """Put a frame into the encoder, None at the end, and what comes out of it into the file."""
        # In one call of compiled code: Ctrl-C comes between two of Python's instructions, and a
        # packet lost there would take all frames that build on it along.
        encoded = map(self._stream.encode, [frame])
        list(map(self._container.mux, encoded))

    def _fitted(self, image: Image.Image) -> Image.Image:
        width, height = self._size
        is_odd_only = 0 <= width - image.width <= 1 and 0 <= height - image.height <= 1
        if not is_odd_only:
            # The pictures of a stream may change their size in the middle.
            return image.resize(self._size)
        padded = Image.new("RGB", self._size)
        padded.paste(image)
        return padded
