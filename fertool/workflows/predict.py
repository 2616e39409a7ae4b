"""Label the faces in pictures and videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fertool.config.option import configured
from fertool.config.predicting import PredictConfig
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter
from fertool.results import PictureResult, PredictionHeader, PredictionSummary
from fertool.workflows.predictors import open_any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fertool.faces.alignment import Template
    from fertool.faces.detector import Detector
    from fertool.faces.frames import Frame
    from fertool.faces.labeling import Classify, CropShape, FaceLabeler, LabeledFrame
    from fertool.faces.sources import Source
    from fertool.runtime import Predictor
    from fertool.workflows.model import Model

AnySource = Any
"""A path or a name as the command line takes it, or pixels uint8 [H, W] or [H, W, 3]."""
_FER2013_DIGESTS = ("57dc57ef1a9c", "67ef686cfe6b")
"""Beginnings of the digests of FER2013's training and public test images in a provenance, with its
own labels and with the majority of FER+ votes."""
_FILE_KINDS = ("picture", "video")
_PROBABILITY_SUM = 1e-3
"""By which the sum of outputs may differ from 1 that count as probabilities."""


@dataclass
class Predictions:
    """The results of a run, computed while they are iterated over: one picture in memory.

    `header` holds for all of them; `summary` counts what has been seen so far.
    """

    header: PredictionHeader
    sources: Sequence[Source]
    _labeler: FaceLabeler
    _config: PredictConfig
    _reporter: Reporter
    _pixels: Sequence[Frame] = ()
    summary: PredictionSummary = field(default_factory=PredictionSummary)

    @property
    def files(self) -> list[Path]:
        """The files that are read: none of them may become an output."""
        return [Path(source.name) for source in self.sources if source.kind in _FILE_KINDS]

    def __iter__(self) -> Iterator[PictureResult]:
        """Yield the result of each picture and of each frame."""
        for labeled in self.with_images():
            yield labeled.result

    def with_images(self) -> Iterator[LabeledFrame]:
        """Yield the same with the images, and with the crops that were classified."""
        for frame in self._pixels:
            yield self._counted(self._labeler.label(frame))
        for source in self.sources:
            yield from self._of_source(source)

    def _of_source(self, source: Source) -> Iterator[LabeledFrame]:
        from fertool.faces.frames import read_frames

        tracker = self._labeler.new_tracker() if source.is_video else None
        config = self._config
        for frame in read_frames(source, config.every, config.threads, self._reporter):
            if frame.error is not None:
                self._reporter.warn(f"{source.name}: {frame.error}; {frame.hint}")
            yield self._counted(self._labeler.label(frame, tracker))

    def _counted(self, labeled: LabeledFrame) -> LabeledFrame:
        self.summary = self.summary.plus(labeled.result)
        return labeled


def predict(
    model: Model | str | Path,
    sources: AnySource | Iterable[AnySource],
    config: PredictConfig = PredictConfig(),
    *,
    outputs: Iterable[Path] = (),
    reporter: Reporter = SILENT,
    **options: Any,
) -> Predictions:
    """Label the faces of pictures, folders, videos and cameras by a model or a model file.

    `sources` are paths, patterns, `camera:0`, `rtsp://…`, `-` for stdin, or arrays uint8 [H, W] or
    [H, W, 3] in RGB. Nothing is read before the result is iterated over; what cannot be read is a
    result with an error. `outputs`, which may lie in a folder that is read, are not taken for
    sources. `options` are those of `PredictConfig`, by name.

    Raises FertoolError for a model that cannot be read or has an input without 1 or 3 channels.
    """
    from fertool.faces.labeling import FaceLabeler
    from fertool.faces.sources import list_sources

    (config,) = configured(config, options)
    names, frames = _named_and_given(sources)
    predictor = open_any(model, config.foreign, reporter)
    require_pictures_fit(predictor)
    template, origin = template_of(predictor, config.detect, reporter)
    temperature = temperature_of(predictor)
    labeler = FaceLabeler(
        classify=classifier(predictor, config.threads),
        classes=predictor.classes,
        shape=crop_shape_of(predictor),
        template=template,
        detector=open_detector(config),
        config=config,
    )
    header = PredictionHeader(
        model=str(predictor.path),
        digest=predictor.digest,
        classes=tuple(predictor.classes),
        detector=config.detection.detector if config.detect else None,
        template=origin if config.detect else None,
        temperature=temperature,
    )
    found = list_sources(names, outputs)
    return Predictions(header, found, labeler, config, reporter, frames)


def open_detector(config: PredictConfig) -> Detector | None:
    """Return the detector of a config, None where pictures are crops already."""
    from fertool.faces.detector import load_detector

    if not config.detect:
        return None
    return load_detector(config.detection.detector, config.threads)


def _named_and_given(sources: AnySource) -> tuple[list[str], list[Frame]]:
    """Return the sources that have names, and the pictures that are given as arrays."""
    from fertool.faces.frames import Frame
    from fertool.faces.sources import Source

    is_one = isinstance(sources, str | Path) or hasattr(sources, "__array__")
    names: list[str] = []
    frames: list[Frame] = []
    for each in [sources] if is_one else sources:
        if isinstance(each, str | Path):
            names.append(str(each))
            continue
        name = f"image {len(frames)}"
        source = Source("picture", name, PurePath(name))
        frames.append(Frame(source, image=_as_image(each)))
    return names, frames


def _as_image(pixels: Any) -> Any:
    import numpy as np
    from PIL import Image

    array = np.asarray(pixels)
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not is_picture or 0 in array.shape:
        raise UsageError(
            f"a source of type {array.dtype} and shape {array.shape}",
            "give a name, or pixels uint8 [H, W] or [H, W, 3]",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def template_of(predictor: Predictor, detect: bool, reporter: Reporter) -> tuple[Template, str]:
    """Return where the landmarks lie in the crops that a model takes, and who says so."""
    from fertool.faces.constants import FER2013_TEMPLATE

    spec = predictor.spec
    if spec is not None and spec.face_template is not None:
        return spec.face_template, "header"
    if detect and not _is_of_fer2013(predictor):
        reporter.note(
            f"{predictor.path}: faces are cut as in FER2013, since its header has no face "
            "template; crops of another kind cost accuracy"
        )
    return FER2013_TEMPLATE, "fer2013"


def _is_of_fer2013(predictor: Predictor) -> bool:
    """Return whether the provenance of a model names FER2013's data."""
    if predictor.spec is None:
        return False
    digests = [step.inputs.get("data", "") for step in predictor.spec.provenance]
    return any(digest.startswith(_FER2013_DIGESTS) for digest in digests)


def require_pictures_fit(predictor: Predictor) -> None:
    """Raise FertoolError for a model whose input no picture has the channels of."""
    if predictor.input.channels not in (1, 3):
        raise FertoolError(
            f"{predictor.path}: takes images of {predictor.input.channels} channels",
            "pictures have 1 or 3",
        )


def crop_shape_of(predictor: Predictor) -> CropShape:
    """Return what the crops are that a model file takes."""
    from fertool.faces.labeling import CropShape

    return CropShape(predictor.channels, predictor.input.size, predictor.any_size)


def temperature_of(predictor: Predictor) -> float:
    """Return what divides the logits of a model, 1 where its header says nothing."""
    spec = predictor.spec
    return spec.temperature if spec and spec.temperature else 1.0


def classifier(predictor: Predictor, threads: int) -> Classify:
    """Return a function from the pixels of one crop to its probabilities."""
    import numpy as np

    from fertool.runtime.threads import limited_threads

    temperature = temperature_of(predictor)

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        images = np.repeat(pixels[None], predictor.batch or 1, axis=0)
        with limited_threads([predictor], threads):
            logits = predictor.run_checked(predictor.prepare_pass(images), len(images))
        outputs: NDArray[np.float64] = logits[0].astype(np.float64)
        # Files of other programs may end in a softmax, and another one would level them.
        if predictor.spec is None and _are_probabilities(outputs):
            return outputs
        return _softmax(outputs / temperature)

    return classify


def _are_probabilities(outputs: NDArray[np.float64]) -> bool:
    return bool(outputs.min() >= 0 and abs(outputs.sum() - 1) <= _PROBABILITY_SUM)


def _softmax(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    powers = np.exp(scaled - scaled.max())
    probabilities: NDArray[np.float64] = powers / powers.sum()
    return probabilities
