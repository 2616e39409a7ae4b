"""Evaluate models on photographs that nobody has cropped: detection, alignment, classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fertool.config.evaluation import EvaluationConfig
from fertool.config.reading import parse_classes
from fertool.errors import FertoolError
from fertool.reporter import Reporter
from fertool.results import ClassFigures, DetectionFigures, Evaluation, Headline
from fertool.workflows.data import Data
from fertool.workflows.predict import classifier, crop_shape_of, require_pictures_fit, template_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fertool.data.folders import Listing
    from fertool.data.image_batches import ImageEntry
    from fertool.runtime import Predictor

NO_FACE = "no face"
"""The prediction for a photograph in which no face is found."""
_CERTAIN = 1000.0
"""The logit of what is not a question of probability."""

Figures = tuple[Evaluation, "NDArray[np.bool_]"]


def evaluate_pictures(
    predictors: Sequence[Predictor], data: Data, config: EvaluationConfig, reporter: Reporter
) -> list[Figures]:
    """Return the figures of each model, and for each photograph [N] whether its class is right.

    The largest face of a photograph is classified; one without a face counts as wrong. Without
    split folders all photographs of the source are taken.

    Raises FertoolError for a photograph that cannot be read, or when no face is found in any.
    """
    import numpy as np

    classes = predictors[0].classes
    for predictor in predictors:
        require_pictures_fit(predictor)
        if predictor.classes != classes:
            raise FertoolError(
                f"{predictor.path}: other classes than {predictors[0].path}",
                "compare models of the same classes, or evaluate each file alone",
            )
    entries, index_of, split = _photographs(data, config.split, predictors[0], reporter)
    labels = np.array([index_of[entry.label] for entry in entries])
    logits = _logits(predictors, entries, config, reporter)
    has_face = logits[0][:, -1] < 0
    if not has_face.any():
        raise FertoolError(
            f"{data.source}: no face in {len(entries)} photographs",
            "crops need no ``detect``; smaller faces: a larger ``detect_size``",
        )
    found: list[Figures] = []
    for predictor, of_model in zip(predictors, logits, strict=True):
        evaluation = _figures(predictor, of_model, labels, has_face, split)
        found.append((evaluation, of_model.argmax(1) == labels))
    return found


def _photographs(
    data: Data, split: str, predictor: Predictor, reporter: Reporter
) -> tuple[list[ImageEntry], dict[str, int], str]:
    """Return the photographs to evaluate, the class index of each label, and their split.

    The split is "all" where the source has none.
    """
    from fertool.data.opening import list_pictures

    listing = list_pictures(data.source, data.read.given_format)
    if set(listing) == {"train"}:
        reporter.note(f"{data.source}: no split folders, all photographs are evaluated")
        split = "all"
        everything = listing["train"]
    elif split in listing:
        everything = listing[split]
    else:
        raise FertoolError(
            f"{data.source}: no images in the split '{split}'",
            f"its splits are: {', '.join(listing) or 'none'}",
        )
    index_of = _class_indices(data, listing, predictor)
    entries = [entry for entry in everything if entry.label in index_of]
    left_out = len(everything) - len(entries)
    if left_out:
        reporter.note(f"{data.source}: {left_out:,} photographs of classes that the models lack")
    if not entries:
        raise FertoolError(
            f"{data.source}: no photographs of the models' classes", "see fertool data info"
        )
    return entries, index_of, split


def _class_indices(data: Data, listing: Listing, predictor: Predictor) -> dict[str, int]:
    """Return the index of the model's class that each label means; others are missing.

    Classes that were merged for the training are merged here, by the model's lineage.
    """
    from fertool.data.class_groups import resolve_groups
    from fertool.data.labels import match_classes

    labels: set[str] = set()
    for entries in listing.values():
        labels |= {entry.label for entry in entries}
    target_of = {label: label for label in labels}
    read = data.read_as(predictor.spec.provenance if predictor.spec else ())
    if read.classes:
        target_of = resolve_groups(parse_classes(read.classes), tuple(sorted(labels)))
    meant = match_classes(target_of.values(), predictor.classes)
    index_of: dict[str, int] = {}
    for label, target in target_of.items():
        if target in meant:
            index_of[label] = predictor.classes.index(meant[target])
    return index_of


def _logits(
    predictors: Sequence[Predictor],
    entries: Sequence[ImageEntry],
    config: EvaluationConfig,
    reporter: Reporter,
) -> list[NDArray[np.float64]]:
    """Return the logits [N, K + 1] of each model, the last of which stands for `NO_FACE`."""
    import numpy as np

    from fertool.data.decoding import decoded_image
    from fertool.faces.detector import load_detector
    from fertool.faces.finding import find_faces, largest_face
    from fertool.faces.labeling import channels_first, crop_for

    detector = load_detector(config.detection.detector)
    templates = [template_of(predictor, True, reporter)[0] for predictor in predictors]
    classifiers = [classifier(predictor, 1) for predictor in predictors]
    classes = len(predictors[0].classes)
    logits = [np.full((len(entries), classes + 1), -_CERTAIN) for _ in predictors]
    with reporter.progress("detect") as on_progress:
        for row, entry in enumerate(entries):
            with decoded_image(entry.path) as decoded:
                faces = largest_face(find_faces(detector, decoded.image, config.detection))
                for index, predictor in enumerate(predictors):
                    if not faces:
                        logits[index][row, -1] = _CERTAIN
                        continue
                    shape = crop_shape_of(predictor)
                    crop = crop_for(shape, decoded.image, faces[0], templates[index])
                    probabilities = classifiers[index](channels_first(crop))
                    smallest = np.finfo(np.float64).tiny
                    logits[index][row, :-1] = np.log(np.maximum(probabilities, smallest))
            on_progress(row + 1, len(entries))
    return logits


def _figures(
    predictor: Predictor,
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    has_face: NDArray[np.bool_],
    split: str,
) -> Evaluation:
    from fertool.metrics import evaluate_logits

    classes = predictor.classes
    with_face = evaluate_logits(logits[has_face, :-1], labels[has_face], classes)
    names = (*classes, NO_FACE)
    all_pictures = evaluate_logits(logits, labels, names)
    per_class: dict[str, ClassFigures] = {}
    f1: list[float] = []
    for index, name in enumerate(classes):
        figures = all_pictures.per_class[name]
        predicted = sum(row[index] for row in all_pictures.confusion)
        if figures["n"] or predicted:
            f1.append(figures["f1"])
    for name, values in all_pictures.per_class.items():
        per_class[name] = ClassFigures(**values)
    headline = Headline(with_face.n, with_face.accuracy, with_face.accuracy_ci95)
    return Evaluation(
        file=str(predictor.path),
        split=split,
        n=all_pictures.n,
        accuracy=all_pictures.accuracy,
        accuracy_ci95=all_pictures.accuracy_ci95,
        # Of the classes alone: nothing is to be recognized as "no face".
        macro_f1=sum(f1) / len(f1),
        balanced_accuracy=all_pictures.balanced_accuracy,
        # Where there was a prediction, whose probability can be right or wrong.
        ece=with_face.ece,
        per_class=per_class,
        confusion=all_pictures.confusion,
        digest=predictor.digest,
        foreign=predictor.assumptions,
        detection=DetectionFigures(int((~has_face).sum()), headline),
    )
