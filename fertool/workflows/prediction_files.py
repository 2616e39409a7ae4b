"""The files of predictions, written as these are made: results, drawn pictures, videos, crops."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from fertool.artifact.atomic import cannot_write, replacing
from fertool.errors import UsageError
from fertool.report.printable import json_line
from fertool.results import PictureResult, PredictionHeader, PredictionSummary
from fertool.workflows.picture_files import OutputFolder, save_picture

if TYPE_CHECKING:
    from PIL import Image

    from fertool.faces.frames import Frame
    from fertool.faces.labeling import LabeledFrame
    from fertool.faces.video_writing import VideoWriter

Write = Callable[[str], None]
SUFFIXES = (".jsonl", ".json", ".csv")
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_VIDEO_SUFFIX = ".mp4"
_USUAL_RATE = 25
"""Frames a second of a video without time stamps."""
_COLUMNS = (
    "file",
    "frame",
    "time_s",
    "width",
    "height",
    "face",
    "track",
    "x",
    "y",
    "w",
    "h",
    "score",
    "label",
    "confidence",
    "error",
)


class ResultWriter(ABC):
    """Writes results as text, each as a whole piece."""

    def __init__(self, write: Write, header: PredictionHeader) -> None:
        self._write = write
        self._header = header

    @abstractmethod
    def add(self, result: PictureResult) -> None:
        """Write one result."""

    @abstractmethod
    def finish(self, summary: PredictionSummary) -> None:
        """Write what stands at the end."""


class _Lines(ResultWriter):
    """Lines that are whole at any time: nothing stands at the end."""

    def finish(self, summary: PredictionSummary) -> None:
        """Write nothing."""


class JsonLines(_Lines):
    """One JSON object in each line."""

    def add(self, result: PictureResult) -> None:
        """Write one line."""
        self._write(json_line(result.as_dict()) + "\n")


class JsonObject(ResultWriter):
    """One JSON object: the header, `pictures` and the summary."""

    def __init__(self, write: Write, header: PredictionHeader) -> None:
        super().__init__(write, header)
        self._before = "\n"
        fields = [
            f"{json_line(key)}: {json_line(value)}" for key, value in header.as_dict().items()
        ]
        self._write("{" + ",\n ".join(fields) + ',\n "pictures": [')

    def add(self, result: PictureResult) -> None:
        """Write one entry of `pictures`."""
        self._write(f"{self._before}  {json_line(result.as_dict())}")
        self._before = ",\n"

    def finish(self, summary: PredictionSummary) -> None:
        """Close the list and the object."""
        self._write(f'],\n "summary": {json_line(summary.as_dict())}}}\n')


class Csv(_Lines):
    """A row for each face; a picture without one has a row with empty cells."""

    def __init__(self, write: Write, header: PredictionHeader) -> None:
        super().__init__(write, header)
        self._row([*_COLUMNS, *(f"p_{name}" for name in header.classes)])

    def add(self, result: PictureResult) -> None:
        """Write the rows of one result."""
        start = [result.file, result.frame, result.time_s, result.width, result.height]
        if not result.faces:
            empty = [None] * (len(_COLUMNS) - len(start) - 1)
            classes = [None] * len(self._header.classes)
            self._row([*start, *empty, result.error, *classes])
        for face in result.faces:
            row = [*start, face.face, face.track, *face.box, face.score, face.label]
            self._row([*row, face.confidence, None, *face.probabilities.values()])

    def _row(self, cells: Iterable[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        self._write(text.getvalue())


_WRITERS: dict[str, type[ResultWriter]] = {".jsonl": JsonLines, ".json": JsonObject, ".csv": Csv}


def require_result_suffix(path: Path) -> None:
    """Raise UsageError for a file of results that has none of the `SUFFIXES`."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(
            f"{path}: results are written as {', '.join(SUFFIXES)}",
            f"for example {path.with_suffix('.jsonl').name}",
        )


@contextmanager
def result_file(path: Path, header: PredictionHeader) -> Iterator[ResultWriter]:
    """Yield the writer of a file of results, by its suffix.

    Lines (.jsonl, .csv) stand in the file as soon as they are written, so that a long run can be
    watched; an object (.json) gets its name when it is whole.
    """
    kind = _WRITERS[path.suffix.lower()]
    try:
        if kind is JsonObject:
            with replacing(path) as file:
                yield kind(_writing_bytes(file, flushed=False), header)
        else:
            with open(path, "wb") as file:
                yield kind(_writing_bytes(file, flushed=True), header)
    except BrokenPipeError:
        # Of stdout, whose reader has gone.
        raise
    except OSError as error:
        raise cannot_write(path, error) from None


def result_stream(stream: TextIO, header: PredictionHeader) -> ResultWriter:
    """Return the writer of one JSON object on a text stream."""
    return JsonObject(_writing_text(stream), header)


def _writing_bytes(file: BinaryIO, flushed: bool) -> Write:
    def write(text: str) -> None:
        # Halves of surrogate pairs stand for bytes of file names that are not UTF-8.
        file.write(text.encode("utf-8", "backslashreplace"))
        if flushed:
            file.flush()

    return write


def _writing_text(stream: TextIO) -> Write:
    def write(text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode())

    return write


class DrawnFiles:
    """Pictures and videos with boxes, in a folder or in one file."""

    def __init__(self, target: Path, inputs: Iterable[Path], threads: int) -> None:
        self._single = target if is_single_drawing(target) else None
        self._names = OutputFolder(target, inputs)
        self._threads = threads
        self._video: VideoWriter | None = None
        self._open = ExitStack()
        self._source: Any = None
        self._path = target

    def add(self, labeled: LabeledFrame) -> None:
        """Draw one frame."""
        from fertool.faces.drawing import draw_result

        frame = labeled.frame
        if frame.image is None:
            return
        drawn = draw_result(frame.image, labeled.result)
        if frame.source.is_video:
            self._add_to_video(frame, drawn)
            return
        path = self._single or self._names.unused(frame.source.place.with_suffix(".jpg"))
        save_picture(drawn, path)

    def finish(self) -> None:
        """Complete the video that is being written."""
        try:
            if self._video is not None:
                self._video.close()
            self._open.close()
        except OSError as error:
            raise cannot_write(self._path, error) from None
        finally:
            self._video = None

    def leave(self, kind: Any, error: Any, trace: Any) -> None:
        """Complete the video, or after an error give it up with its file."""
        if kind is None:
            self.finish()
        else:
            self._open.__exit__(kind, error, trace)

    def _add_to_video(self, frame: Frame, drawn: Image.Image) -> None:
        from fertool.faces.video_writing import VideoWriter

        if self._video is None or frame.source is not self._source:
            self.finish()
            place = frame.source.place
            named = self._single or self._names.unused(place.with_name(place.stem + _VIDEO_SUFFIX))
            self._path, self._source = named, frame.source
            with ExitStack() as opened:
                file = opened.enter_context(replacing(named))
                self._video = VideoWriter(file, drawn.size, self._threads)
                # Only now: a file without a video in it is removed.
                self._open = opened.pop_all()
        time_s = frame.number / _USUAL_RATE if frame.time_s is None else frame.time_s
        try:
            self._video.write(drawn, time_s)
        except OSError as error:
            raise cannot_write(self._path, error) from None


class CropFiles:
    """The crops that were classified, one PNG each, named by picture, frame and face."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self._names = OutputFolder(folder, inputs)

    def add(self, labeled: LabeledFrame) -> None:
        """Write the crops of one frame."""
        frame = labeled.frame
        place = frame.source.place
        number = f".{frame.number:06d}" if frame.source.is_video else ""
        for index, crop in enumerate(labeled.crops):
            name = f"{place.stem}{number}.{index}.png"
            save_picture(crop, self._names.unused(place.with_name(name)))


def is_single_drawing(target: Path) -> bool:
    """Return whether a target of drawing is one picture or video, by its suffix, not a folder."""
    return target.suffix.lower() in (*_PICTURE_SUFFIXES, _VIDEO_SUFFIX)
