"""Evaluate models on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.evaluation import AccuracyLimit, EvaluationConfig, Split, Tta
from fertool.config.option import configured
from fertool.config.pictures import CorruptionPictures
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, OnProgress, Reporter
from fertool.results import (
    AccuracyComparison,
    ClassFigures,
    Corruptions,
    Evaluation,
    EvaluationReport,
    Headline,
    ProfileFigures,
)
from fertool.workflows.accuracy_regression import find_losses, with_baseline
from fertool.workflows.data import Data
from fertool.workflows.model import Model
from fertool.workflows.pictures import draw_corruptions, require_pictures
from fertool.workflows.predictors import open_any
from fertool.workflows.routing import evaluate_profiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fertool import metrics
    from fertool.data.dataset import FaceDataset
    from fertool.data.source import DataSource
    from fertool.gate_spec import RoutingMetrics
    from fertool.runtime import Predictor

AnyModel = Model | str | Path


def evaluate(
    models: AnyModel | Iterable[AnyModel],
    data: Data,
    config: EvaluationConfig = EvaluationConfig(),
    limit: AccuracyLimit = AccuracyLimit(),
    *,
    pictures: CorruptionPictures = CorruptionPictures(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> EvaluationReport:
    """Evaluate models or model files on one split, with 95 % intervals and paired tests.

    Each is compared with the first. A second figure excludes images that are exact copies of
    training images. With ``detect`` the data are photographs whose faces are found first, and a
    photograph without one counts as wrong. With ``corruptions`` the images are corrupted in eight
    ways too, each at five levels, always alike for the same seed. With ``not_worse_than`` that file
    is the baseline, and `limit` of the result says which files are worse than allowed. `options`
    are those of `EvaluationConfig`, `AccuracyLimit` and `CorruptionPictures`, by name.

    Raises FertoolError for a file that cannot be read, and for models whose classes differ,
    and with them the images.
    """
    config, limit, pictures = configured(config, options, limit, pictures)
    compared = as_list(models)
    _require_picture(pictures, config, compared, data)
    if limit.not_worse_than is not None:
        compared = with_baseline(limit.not_worse_than, compared)
    report = _evaluate_all(compared, data, config, reporter)
    draw_corruptions(pictures, report.results)
    if limit.not_worse_than is None:
        return report
    return replace(report, limit=find_losses(report.comparisons, limit))


def _evaluate_all(
    models: Sequence[AnyModel], data: Data, config: EvaluationConfig, reporter: Reporter
) -> EvaluationReport:
    if config.detect:
        from fertool.workflows.evaluate_pictures import evaluate_pictures

        predictors = [open_any(model, config.foreign, reporter) for model in models]
        found = evaluate_pictures(predictors, data, config, reporter)
        evaluations = [evaluation for evaluation, _ in found]
        right = [is_correct for _, is_correct in found]
        return EvaluationReport(tuple(evaluations), tuple(compare(evaluations, right)))
    results: list[Evaluation] = []
    correct: list[NDArray[np.bool_]] = []
    first: tuple[str, DataSource] | None = None
    for model in models:
        predictor = open_any(model, config.foreign, reporter)
        source = data.fitted_to(predictor)
        # Of each model in its own shape, but the same images.
        candidate = (str(predictor.path), source)
        first = first or candidate
        _require_same_images(candidate, first, config.split)
        result, is_correct = evaluate_predictor(
            predictor, source, config.split, config.tta, reporter
        )
        if config.corruptions:
            corrupted = _under_corruptions(predictor, source, is_correct, config, reporter)
            result = replace(result, corruptions=corrupted)
        results.append(result)
        correct.append(is_correct)
    return EvaluationReport(tuple(results), tuple(compare(results, correct)))


def as_list(models: AnyModel | Iterable[AnyModel]) -> list[AnyModel]:
    """Return one model, or several, as a list."""
    if isinstance(models, Model | str | Path):
        return [models]
    return list(models)


def evaluate_predictor(
    predictor: Predictor, source: DataSource, split: Split, tta: Tta, reporter: Reporter
) -> tuple[Evaluation, NDArray[np.bool_]]:
    """Return the figures of one model, and for each image [N] whether its prediction is right.

    With test-time augmentation they are those of all views; the figure of a single crop stands
    beside them.
    """
    from fertool.metrics import evaluate_logits

    images = source.split(split)
    with reporter.progress(predictor.path.name) as on_progress:
        logits, alone = _logits_of_views(predictor, images.images, tta, on_progress)
    labels = images.labels.numpy()
    single_crop = None
    if alone is not None:
        single_crop = _headline(evaluate_logits(alone, labels, predictor.classes))
    profiles: tuple[ProfileFigures, ...] = ()
    routing: RoutingMetrics | None = None
    # Views of an image may have several profiles.
    if predictor.choose_profile and tta == "none":
        profiles, routing = evaluate_profiles(predictor, images.images, labels, logits)
    figures = evaluate_logits(logits, labels, predictor.classes)
    per_class = {name: ClassFigures(**values) for name, values in figures.per_class.items()}
    evaluation = Evaluation(
        file=str(predictor.path),
        split=split,
        tta=tta,
        n=figures.n,
        accuracy=figures.accuracy,
        accuracy_ci95=figures.accuracy_ci95,
        macro_f1=figures.macro_f1,
        balanced_accuracy=figures.balanced_accuracy,
        ece=figures.ece,
        per_class=per_class,
        confusion=figures.confusion,
        single_crop=single_crop,
        digest=predictor.digest,
        foreign=predictor.assumptions,
        deduplicated=_deduplicated(predictor, source, split, logits, labels),
        profiles=profiles,
        routing=routing,
    )
    return evaluation, logits.argmax(1) == labels


def _under_corruptions(
    predictor: Predictor,
    source: DataSource,
    clean: NDArray[np.bool_],
    config: EvaluationConfig,
    reporter: Reporter,
) -> Corruptions:
    from fertool.workflows.corruptions import evaluate_corruptions

    images = source.split(config.split)
    labels = images.labels.numpy()

    def is_correct(changed: Tensor) -> NDArray[np.bool_]:
        # In the same views as the clean images, which they are compared with.
        logits, _ = _logits_of_views(predictor, changed, config.tta, lambda done, total: None)
        right: NDArray[np.bool_] = logits.argmax(1) == labels
        return right

    with reporter.progress(f"{predictor.path.name}, corrupted") as on_progress:
        return evaluate_corruptions(
            images.images,
            clean,
            is_correct,
            config.chosen_corruptions,
            config.corruption_seed or 0,
            on_progress,
        )


def _require_picture(
    pictures: CorruptionPictures, config: EvaluationConfig, models: Sequence[AnyModel], data: Data
) -> None:
    """Raise FertoolError for a picture of nothing, or one that cannot be written."""
    if pictures.plot is None:
        return
    if not config.corruptions:
        raise UsageError(
            f"``plot={pictures.plot}``: there is nothing to draw", "add ``corruptions=all``"
        )
    inputs = [*data.files]
    for model in models:
        path = model.path if isinstance(model, Model) else Path(model)
        if path is not None:
            inputs.append(path)
    require_pictures(pictures, None, inputs)


def _logits_of_views(
    predictor: Predictor, images: Tensor, tta: Tta, on_progress: OnProgress
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the logits [N, C] of images, averaged over their views, and of the images alone.

    The second are None where there are no other views.
    """
    import numpy as np

    from fertool.data.tta import tta_views

    logits_of_views: list[NDArray[Any]] = []
    for view in tta_views(images, tta):
        logits_of_views.append(predictor.logits(view, on_progress=on_progress))
    # One view keeps its logits, which calibration needs.
    logits = logits_of_views[0]
    if len(logits_of_views) > 1:
        logits = log_mean_softmax(np.stack(logits_of_views))
    if tta == "none":
        return logits, None
    # The first view of `flip` is the image itself; no view of `ten-crop` is.
    if tta == "ten-crop":
        return logits, predictor.logits(images)
    return logits, logits_of_views[0]


def _deduplicated(
    predictor: Predictor,
    source: DataSource,
    split: Split,
    logits: NDArray[Any],
    labels: NDArray[np.int64],
) -> Headline | None:
    """Return the accuracy on the images of which no training image is a copy."""
    from fertool.metrics import evaluate_logits

    # Without training images at hand nothing is known about copies of them.
    if split == "train" or "train" not in source.splits:
        return None
    fresh = source.distinct_from(split, "train").numpy()
    if not fresh.any():
        return None
    return _headline(evaluate_logits(logits[fresh], labels[fresh], predictor.classes))


def compare(
    results: Sequence[Evaluation], correct: Sequence[NDArray[np.bool_]]
) -> list[AccuracyComparison]:
    """Return the paired comparison of each model with the first one."""
    from fertool.metrics import compare_paired

    comparisons = []
    for result, is_correct in zip(results[1:], correct[1:], strict=True):
        pair = compare_paired(correct[0], is_correct)
        comparisons.append(AccuracyComparison(results[0].file, result.file, **asdict(pair)))
    return comparisons


def _headline(evaluation: metrics.Evaluation) -> Headline:
    return Headline(evaluation.n, evaluation.accuracy, evaluation.accuracy_ci95)


def _require_same_images(
    candidate: tuple[str, DataSource], first: tuple[str, DataSource], split: Split
) -> None:
    """Raise FertoolError unless two models predict for the same images.

    Both sets come from one list in one order, so that the same names in the same order are the same
    images, if the same ones were held out.
    """
    (file, source), (first_file, first_source) = candidate, first
    if source.division != first_source.division:
        raise FertoolError(
            f"{file}: was trained with another division of {source.name} into splits "
            f"than {first_file}",
            "evaluate each file alone, or on data with splits of their own",
        )
    require_same_labels(
        (file, source.split(split)),
        (first_file, first_source.split(split)),
        "compare models of the same classes, or evaluate each file alone",
    )


def require_same_labels(
    candidate: tuple[str, FaceDataset], first: tuple[str, FaceDataset], hint: str
) -> None:
    """Raise FertoolError unless the images of two files have the same classes in the same order.

    Those of classes that a model lacks are not among its images.
    """
    names = []
    for _, images in (candidate, first):
        names.append([images.classes[k] for k in images.labels.tolist()])
    if names[0] != names[1]:
        raise FertoolError(
            f"{candidate[0]}: knows {len(names[0])} of the images, {first[0]} {len(names[1])}, "
            "for their classes differ",
            hint,
        )


def log_mean_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return [N, K], the logarithm of the mean softmax of `logits` [views, N, K].

    It is finite however sure the model is.
    """
    import numpy as np

    wide = logits.astype(np.float64)
    log_p = wide - np.logaddexp.reduce(wide, axis=2, keepdims=True)
    mean: NDArray[np.float64] = np.logaddexp.reduce(log_p, axis=0) - np.log(len(log_p))
    return mean
