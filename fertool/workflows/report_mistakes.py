"""What two models are surest and wrong about, on images of a data set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.foreign_files import ForeignModel
from fertool.errors import UsageError
from fertool.report.mistakes import Mistake, MistakeGroup, Mistakes, Prediction
from fertool.reporter import Reporter
from fertool.results import AccuracyComparison, ModelSummary
from fertool.workflows.evaluate import require_same_labels
from fertool.workflows.predictors import open_any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fertool.config.reporting import ReportConfig
    from fertool.data.dataset import FaceDataset
    from fertool.workflows.data import Data

_LARGEST_SIDE = 160
"""Pixels of an image on a page; larger ones are made smaller."""
_HEAT_COLOR = (230, 120, 20)
_HEAT_OPACITY = 0.65


@dataclass(frozen=True)
class _Predictions:
    """The probabilities [N, K] of one model.

    `predicted` and `confidence` [N] are index and probability of the best class.
    """

    file: str
    images: FaceDataset
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    is_right: NDArray[np.bool_]

    def prediction(self, index: int) -> Prediction:
        """Return what the model says of one image."""
        name = self.images.classes[int(self.predicted[index])]
        return Prediction(name, float(self.confidence[index]))


def find_mistakes(
    models: Sequence[ModelSummary],
    data: Data,
    config: ReportConfig,
    *,
    with_images: bool,
    reporter: Reporter,
) -> tuple[Mistakes | None, AccuracyComparison | None]:
    """Return the surest mistakes of the first and the last model, and their paired comparison.

    Of one model alone there is no comparison, and without `with_images` there are no mistakes.
    Raises FertoolError for models whose classes differ, and with them the images.
    """
    from fertool.metrics import compare_paired

    files = list(dict.fromkeys([str(models[0].file), str(models[-1].file)]))
    predictions = [_predict(file, data, config, reporter) for file in files]
    before, after = predictions[0], predictions[-1]
    require_same_labels(
        (after.file, after.images),
        (before.file, before.images),
        "give models of the same classes, or leave ``data`` out",
    )
    comparison = None
    if len(predictions) > 1:
        pair = compare_paired(before.is_right, after.is_right)
        comparison = AccuracyComparison(before.file, after.file, **asdict(pair))
    if not with_images or config.mistakes == 0:
        return None, comparison

    groups, shown = _rank(before, after, config.mistakes)
    maps, mapped = _make_maps(predictions, shown, reporter) if config.grad_cam else ({}, ())
    made = []
    for title, indices in groups.items():
        surest = []
        for index in indices[: config.mistakes]:
            png = _png(after.images.images[index].numpy())
            label = after.images.classes[int(after.images.labels[index])]
            both = before.prediction(index), after.prediction(index)
            surest.append(Mistake(png, label, *both, maps.get(index, ())))
        made.append(MistakeGroup(title, len(indices), tuple(surest)))
    split = after.images.split
    n = len(after.images)
    return Mistakes(before.file, after.file, split, n, tuple(made), mapped), comparison


def _predict(file: str, data: Data, config: ReportConfig, reporter: Reporter) -> _Predictions:
    import numpy as np

    from fertool.workflows.data import crop_channels_of
    from fertool.workflows.predict import temperature_of

    predictor = open_any(Path(file), ForeignModel(), reporter)
    crop_channels = crop_channels_of(predictor)
    source = data.fitted(predictor.input, predictor.classes, crop_channels)
    images = source.split(config.split)
    with reporter.progress(predictor.path.name) as on_progress:
        logits = predictor.logits(images.images, on_progress=on_progress).astype(np.float64)
    logits /= temperature_of(predictor)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    predicted = logits.argmax(1)
    confidence = np.exp(log_p.max(1))
    return _Predictions(file, images, predicted, confidence, predicted == images.labels.numpy())


def _rank(
    before: _Predictions, after: _Predictions, most: int
) -> tuple[dict[str, list[int]], list[int]]:
    """Return the images of each kind, the surest mistake first, and all that are shown."""
    import numpy as np

    if before is after:
        kinds = {"Wrong": (~after.is_right, after.confidence)}
    else:
        both = np.minimum(before.confidence, after.confidence)
        kinds = {
            "Right before, wrong after": (before.is_right & ~after.is_right, after.confidence),
            "Wrong before, right after": (~before.is_right & after.is_right, before.confidence),
            "Wrong before and after": (~before.is_right & ~after.is_right, both),
        }
    groups, shown = {}, []
    for title, (of_kind, confidence) in kinds.items():
        indices = np.flatnonzero(of_kind)
        # Stable, so that equal ones keep the order of the data set.
        order = np.argsort(-confidence[indices], kind="stable")
        groups[title] = indices[order].tolist()
        shown += groups[title][:most]
    return groups, shown


def _make_maps(
    predictions: Sequence[_Predictions], shown: Sequence[int], reporter: Reporter
) -> tuple[dict[int, tuple[bytes, ...]], tuple[str, ...]]:
    """Return for each image the Grad-CAM of each model for the class it predicts, and those models.

    A model that has no gradients is left out with a note; raises UsageError when none has any.
    """
    import torch

    from fertool.data.pixels import to_input
    from fertool.grad_cam import grad_cam
    from fertool.graph.network import Network
    from fertool.workflows.model import load

    maps: dict[int, tuple[bytes, ...]] = {index: () for index in shown}
    mapped = []
    for found in predictions:
        model = load(found.file) if found.file.endswith(".pt") else None
        if model is None or model.spec.quant is not None or not isinstance(model.module, Network):
            reporter.note(f"{found.file}: no Grad-CAM, which needs a float .pt file")
            continue
        mapped.append(Path(found.file).name)
        if not shown:
            continue
        images = found.images.subset(torch.tensor(shown)).images
        predicted = torch.from_numpy(found.predicted[list(shown)])
        heats = grad_cam(model.module, to_input(images, model.input), predicted)
        for index, image, heat in zip(shown, images.numpy(), heats, strict=True):
            maps[index] += (_png(_overlay(image, heat)),)
    if not mapped:
        raise UsageError(
            "``grad_cam=True`` without a model that has gradients", "give the float .pt files"
        )
    return maps, tuple(mapped)


def _overlay(image: NDArray[np.uint8], heat: Any) -> NDArray[np.uint8]:
    """Return an image [C, S, S] in color with a map [H, W] over it, [3, S, S]."""
    import numpy as np
    from torch.nn import functional as F

    size = image.shape[1:]
    fitted = F.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)
    opacity = _HEAT_OPACITY * fitted[0].numpy()
    color = np.array(_HEAT_COLOR)[:, None, None]
    # A gray image becomes one of three equal channels.
    mixed: NDArray[np.uint8] = ((1 - opacity) * image + opacity * color).round().astype(np.uint8)
    return mixed


def _png(image: NDArray[np.uint8]) -> bytes:
    """Return an image [C, S, S], gray or RGB, as PNG."""
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    picture = Image.fromarray(pixels)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()
