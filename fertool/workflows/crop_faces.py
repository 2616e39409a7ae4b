"""Cut the faces out of a folder of photographs, for training on what `predict` will see."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fertool.config.option import configured
from fertool.config.predicting import CropConfig
from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.results import CropReport

if TYPE_CHECKING:
    from PIL import Image

    from fertool.faces.detector import Detector
    from fertool.faces.frames import Frame
    from fertool.workflows.picture_files import OutputFolder


@dataclass
class _CropCounts:
    pictures: int = 0
    crops: int = 0
    without_face: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def crop_faces(
    source: str | Path,
    output: str | Path,
    config: CropConfig = CropConfig(),
    *,
    reporter: Reporter = SILENT,
    **options: Any,
) -> CropReport:
    """Write the aligned faces of all pictures of a source into a folder, as PNG files.

    Folders of classes and splits in the source are folders in the output. The crops are those that
    `predict` classifies: same detection, same alignment, edge pixels continued. `options` are those
    of `CropConfig`, by name.

    Raises FertoolError for a source without pictures or without any face, and for an output that
    cannot be written.
    """
    from fertool.artifact.atomic import require_writable
    from fertool.faces.detector import load_detector
    from fertool.faces.frames import read_frames
    from fertool.faces.sources import list_sources
    from fertool.workflows.picture_files import OutputFolder

    (config,) = configured(config, options)
    folder = Path(output)
    require_writable(folder / "0.png")
    sources = [each for each in list_sources([str(source)], [folder]) if not each.is_video]
    if [each.kind for each in sources] == ["missing"]:
        raise FertoolError(f"{sources[0].name}: {sources[0].error}", "name a folder of pictures")

    detector = load_detector(config.detection.detector, config.threads)
    names = OutputFolder(folder, [Path(each.name) for each in sources])
    counts = _CropCounts()
    with reporter.progress("crop") as on_progress:
        for done, each in enumerate(sources, start=1):
            for frame in read_frames(each, reporter=reporter):
                _crop_picture(frame, detector, config, names, counts)
            on_progress(done, len(sources))
    if not counts.crops:
        raise FertoolError(
            f"{source}: no face in {counts.pictures} pictures",
            "pictures that are crops already need none; smaller faces: a larger ``detect_size``",
        )
    return CropReport(
        output=str(folder),
        size=config.size,
        pictures=counts.pictures,
        crops=counts.crops,
        without_face=tuple(counts.without_face),
        unreadable=tuple(counts.unreadable),
    )


def require_all_cut(report: CropReport) -> None:
    """Raise FertoolError, when all is done, if a picture could not be read."""
    if report.unreadable:
        raise FertoolError(
            f"{len(report.unreadable)} of {report.pictures} could not be read",
            "all others are done",
        )


def _crop_picture(
    frame: Frame,
    detector: Detector,
    config: CropConfig,
    names: OutputFolder,
    counts: _CropCounts,
) -> None:
    """Write the crops of one picture, and count it."""
    from fertool.workflows.picture_files import save_picture

    counts.pictures += 1
    if frame.image is None:
        counts.unreadable.append(f"{frame.source.name} ({frame.error})")
        return
    crops = cut_faces(frame.image, detector, config)
    if not crops:
        counts.without_face.append(frame.source.name)
    place: PurePath = frame.source.place
    for index, crop in enumerate(crops):
        number = f".{index}" if index else ""
        save_picture(crop, names.unused(place.with_name(f"{place.stem}{number}.png")))
        counts.crops += 1


def cut_faces(image: Image.Image, detector: Detector, config: CropConfig) -> list[Image.Image]:
    """Return the aligned faces of a picture in its own mode: all, or the largest."""
    from fertool.faces.alignment import crop_face
    from fertool.faces.finding import find_faces, largest_face

    found = find_faces(detector, image, config.detection)
    if config.faces == "largest":
        found = largest_face(found)
    return [crop_face(image, face.landmarks, config.size) for face in found]
