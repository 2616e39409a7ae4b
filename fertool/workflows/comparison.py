"""What a step did to a model: measured latency, and accuracy tested on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from msgspec import UNSET

from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.results import Change, UnlabeledChange
from fertool.workflows.data import drawn_faces
from fertool.workflows.model import Model
from fertool.workflows.network_latency import bench_networks
from fertool.workflows.routing import fair_logits, measure_dynamic

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.data.dataset import FaceDataset
    from fertool.spec import InputSpec, Spec

# Time that falls so much less than the MACs is worth a remark.
_NOTABLE_GAP = 1.2
_DRAWN_FACES = 280
"""Faces that show a change where there is no data set; those of the training split are used."""


def measure_changes(
    before: Model,
    after: Model,
    val: FaceDataset | None,
    *,
    bench: bool,
    logits: Tensor | None = None,
    reporter: Reporter = SILENT,
) -> Change:
    """Return the paired comparison on the validation images, if any, and with `bench` the latency.

    `logits` are those of `after` on the validation images, where they are known. Where no latency
    can be measured the reason is noted.
    """
    change = Change()
    if val is not None:
        if logits is None:
            logits = validation_logits(after.module, val, after.input, reporter)
        change = _accuracy_change(before, logits, val, reporter)
    if bench:
        try:
            change = _with_latency(change, before, after, val, reporter)
        # The model is made, and worth more than its latency: ONNX Runtime may be missing.
        except FertoolError as error:
            reporter.note(f"no latency measured: {error.message}")
    return change


def _accuracy_change(before: Model, logits: Tensor, val: FaceDataset, reporter: Reporter) -> Change:
    from fertool.metrics import compare_paired

    old = validation_logits(before.module, val, before.input, reporter).argmax(1)
    new = logits.argmax(1)
    old_is_right, new_is_right = (old == val.labels).numpy(), (new == val.labels).numpy()
    return Change(
        accuracy_before=float(old_is_right.mean()),
        accuracy=float(new_is_right.mean()),
        **asdict(compare_paired(old_is_right, new_is_right)),
        top1_agreement=float((old == new).float().mean()),
    )


def measure_unlabeled(before: Model, after: Model, reporter: Reporter = SILENT) -> UnlabeledChange:
    """Return how much predictions on drawn faces change; that needs no data set."""
    from fertool.losses import distillation_kl

    source = drawn_faces(_DRAWN_FACES).fitted(after.input)
    faces = source.split("train")
    old = logits_of(before.module, faces, before.input, reporter)
    new = logits_of(after.module, faces, after.input, reporter)
    class_before, share_before = _commonest_class(old, after.classes)
    class_after, share_after = _commonest_class(new, after.classes)
    return UnlabeledChange(
        images="drawn faces",
        n=len(faces),
        top1_agreement=float((old.argmax(1) == new.argmax(1)).float().mean()),
        kl=float(distillation_kl(new, old, 1.0)),
        commonest_class_before=class_before,
        commonest_share_before=share_before,
        commonest_class=class_after,
        commonest_share=share_after,
    )


def _commonest_class(logits: Tensor, classes: Sequence[str]) -> tuple[str, float]:
    """Return the class that most images [N, K] get, and the fraction of them that do."""
    counts = logits.argmax(1).bincount(minlength=len(classes))
    return classes[int(counts.argmax())], float(counts.max() / counts.sum())


def warn_of_unlabeled(model: Model, found: UnlabeledChange, reporter: Reporter) -> None:
    """Warn that the accuracy of a network pruned without data is unknown."""
    reporter.warn(
        "accuracy was not measured, and without data and training it will be near chance, "
        f"1 in {len(model.classes)}: give ``data``, and ``epochs`` to train"
    )
    if found.commonest_share == 1:
        reporter.warn(
            f"the network predicts {found.commonest_class} for all of {found.n} {found.images}"
        )


def note_time(macs_ratio: float, change: Change, reporter: Reporter) -> None:
    """Note where the time falls clearly less than the MACs, which the budget was in."""
    if change.speedup is UNSET:
        return
    time_ratio = 1 / change.speedup
    if _NOTABLE_GAP * macs_ratio < min(time_ratio, 1):
        reporter.note(
            f"{macs_ratio:.2f} of the MACs take {time_ratio:.2f} of the time here; for less, "
            f"give ``target_latency={1.1 * macs_ratio:.2f}`` beside ``target_flops``"
        )


def _with_latency(
    change: Change, before: Model, after: Model, val: FaceDataset | None, reporter: Reporter
) -> Change:
    """Add the seconds of one image in ONNX Runtime on one thread, interleaved, and their ratio.

    They are medians; of a dynamic network, and of the one beside it, means over images.
    """
    images, kind = None, "median"
    # The work of a dynamic network depends on the image: noise would get a profile of its own, and
    # the median would be that of one profile.
    if after.spec.gates is not None:
        images, kind = val, "mean"
    networks = [(model.spec, model.module) for model in (before, after)]
    measured = bench_networks(*networks, images=images, reporter=reporter)
    first, second = (getattr(result.latency_s, kind) for result in measured.results)
    (pair,) = measured.comparisons
    return replace(
        change,
        latency_s_before=first,
        latency_s=second,
        speedup=pair.speedup,
        speedup_ci95=pair.speedup_ci95,
    )


def with_measured(
    spec: Spec, module: nn.Module, val: FaceDataset, reporter: Reporter = SILENT
) -> tuple[Spec, Tensor]:
    """Return the spec with the figures of a network on the validation images, and its logits.

    Of a dynamic network the spec has also the fraction of them that each profile gets, and what
    that choice is worth.
    """
    from fertool.metrics import evaluate_logits, to_metrics
    from fertool.models.profile_network import ProfileNetwork

    if isinstance(module, ProfileNetwork):
        return measure_dynamic(spec, module, val, reporter)
    logits = validation_logits(module, val, spec.input, reporter)
    evaluation = evaluate_logits(logits, val.labels, val.classes)
    return replace(spec, metrics=to_metrics(evaluation, val.split)), logits


def validation_logits(
    module: nn.Module, val: FaceDataset, input: InputSpec, reporter: Reporter
) -> Tensor:
    """Return the logits [N, K] of the validation images, as if nothing were calibrated on them."""
    from fertool.models.profile_network import ProfileNetwork

    if isinstance(module, ProfileNetwork):
        return fair_logits(module, val, input).chosen
    return logits_of(module, val, input, reporter)


def logits_of(
    module: nn.Module, images: FaceDataset, input: InputSpec, reporter: Reporter
) -> Tensor:
    """Return the logits [N, K] of all images, with progress where that takes long."""
    from fertool.training import predict_logits

    with reporter.progress(f"{images.split} images", brief=True) as on_progress:
        return predict_logits(module, images, input, on_progress=on_progress)
