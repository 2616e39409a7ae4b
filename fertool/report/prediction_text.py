"""What is found in pictures, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from fertool.report.units import counted
from fertool.results import FaceResult, PictureResult, PredictionSummary
from fertool.strict_json import listed


def result_lines(result: PictureResult) -> list[str]:
    """Return a line for each face of a picture, or one that there is none."""
    where = result.file
    if result.time_s is not None:
        where = f"{where}  {result.time_s:.2f} s"
    if result.error is not None:
        return []
    if not result.faces:
        return [f"{where}  no face"]
    return [f"{where}  {_face_text(face)}" for face in result.faces]


def summary_line(summary: PredictionSummary) -> str:
    """Return what a run has seen in one line."""
    parts = [
        counted(summary.pictures, "picture"),
        counted(summary.faces, "face"),
        f"{summary.without_face:,} without a face",
    ]
    if summary.unreadable:
        parts.append(f"{summary.unreadable:,} unreadable")
    return ", ".join(parts)


def crop_lines(
    pictures: int, crops: int, without_face: Sequence[str], unreadable: Sequence[str]
) -> list[str]:
    """Return what became of the pictures of a folder, with the names of those without a crop."""
    lines = [f"{counted(pictures, 'picture')}, {counted(crops, 'crop')}"]
    for what, names in (("without a face", without_face), ("unreadable", unreadable)):
        if names:
            lines.append(f"{len(names):,} {what}: {listed(names)}")
    return lines


def _face_text(face: FaceResult) -> str:
    x, y, width, height = face.box
    number = face.face if face.track is None else face.track
    place = f"face {number} at {x:.0f},{y:.0f} ({width:.0f} x {height:.0f})"
    return f"{place}  {face.label} {100 * face.confidence:.0f} %"
