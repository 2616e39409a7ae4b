"""What a step did to a model: measured latency, and accuracy tested on the same images."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.workflows.data import drawn_faces
from fertool.workflows.model import Model
from fertool.workflows.network_latency import bench_networks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.data.dataset import FaceDataset
    from fertool.spec import InputSpec, Metrics

_DRAWN_FACES = 280
"""Faces that show a change where there is no data set; those of the training split are used."""


def measure_changes(
    before: Model,
    after: Model,
    val: FaceDataset | None,
    *,
    bench: bool,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Return the paired comparison on the validation images, if any, and with `bench` the latencies.

    Where no latency can be measured the reason is noted, and the keys are missing.
    """
    changes: dict[str, Any] = {}
    if val is not None:
        changes |= _accuracy_change(before, after, val, reporter)
    if bench:
        try:
            changes |= _latency_change(before, after, val, reporter)
        except FertoolError as error:
            reporter.note(f"no latency measured: {error.message}")
    return changes


def _accuracy_change(
    before: Model, after: Model, val: FaceDataset, reporter: Reporter
) -> dict[str, Any]:
    from fertool.metrics import compare_paired

    answers = [
        logits_of(model.module, val, model.input, reporter).argmax(1) for model in (before, after)
    ]
    labels = val.labels.numpy()
    first, second = (answer.numpy() == labels for answer in answers)
    return {
        "accuracy_before": float(first.mean()),
        "accuracy": float(second.mean()),
        **asdict(compare_paired(first, second)),
        "top1_agreement": float((answers[0] == answers[1]).float().mean()),
    }


def measure_unlabeled(before: Model, after: Model, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Return what can be measured without a data set: how much the answers to drawn faces changed.

    `top1_agreement`: the fraction of images with the same class before and after; `kl`: the mean KL
    divergence of the new softmax from the old one, in nats; `commonest_share`: the fraction of the
    most frequent answer, `commonest_class`, with the suffix `_before` of the network as it was.
    `accuracy` is None: it was not measured.
    """
    from fertool.losses import distillation_kl

    source = drawn_faces(_DRAWN_FACES).fitted(after.input)
    faces = source.split("train")
    old = logits_of(before.module, faces, before.input, reporter)
    new = logits_of(after.module, faces, after.input, reporter)
    figures = {
        "images": "drawn faces",
        "n": len(faces),
        "accuracy": None,
        "top1_agreement": float((old.argmax(1) == new.argmax(1)).float().mean()),
        "kl": float(distillation_kl(new, old, 1.0)),
    }
    for suffix, logits in (("_before", old), ("", new)):
        counts = logits.argmax(1).bincount(minlength=len(after.classes))
        figures[f"commonest_class{suffix}"] = after.classes[int(counts.argmax())]
        figures[f"commonest_share{suffix}"] = float(counts.max() / counts.sum())
    return figures


def warn_of_unlabeled(model: Model, figures: dict[str, Any], reporter: Reporter) -> None:
    """Warn that the accuracy of a network pruned without data is unknown; see `measure_unlabeled`."""
    reporter.warn(
        "accuracy was not measured, and without data and training it will be near chance, "
        f"1 in {len(model.classes)}: give ``data``, and ``epochs`` to train"
    )
    if figures["commonest_share"] == 1:
        reporter.warn(
            f"the network answers {figures['commonest_class']} to all of {figures['n']} {figures['images']}"
        )


def _latency_change(
    before: Model, after: Model, val: FaceDataset | None, reporter: Reporter
) -> dict[str, Any]:
    """Return seconds of one image in ONNX Runtime on one thread, taken in turns, and their ratio.

    They are medians; of a dynamic network, and of the one beside it, means over images.
    """
    is_dynamic = after.spec.gates is not None
    networks = [(model.spec, model.module) for model in (before, after)]
    measured = bench_networks(*networks, images=val if is_dynamic else None, reporter=reporter)
    kind = "mean" if is_dynamic else "median"
    first, second = (getattr(result.latency_s, kind) for result in measured.results)
    (pair,) = measured.comparisons
    return {
        "latency_s_before": first,
        "latency_s": second,
        "speedup": pair.speedup,
        "speedup_ci95": pair.speedup_ci95,
    }


def measured_metrics(
    module: nn.Module, val: FaceDataset, input: InputSpec, reporter: Reporter = SILENT
) -> Metrics:
    """Return the figures of a network on the validation images."""
    from fertool.metrics import evaluate_logits, to_metrics

    logits = logits_of(module, val, input, reporter)
    return to_metrics(evaluate_logits(logits, val.labels, val.classes), val.split)


def logits_of(
    module: nn.Module, images: FaceDataset, input: InputSpec, reporter: Reporter
) -> Tensor:
    """Return the logits [N, K] of all images, with progress where that takes long."""
    from fertool.training import predict_logits

    with reporter.progress(f"{images.split} images", brief=True) as on_progress:
        return predict_logits(module, images, input, on_progress=on_progress)
