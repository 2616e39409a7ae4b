"""What a step did to a model: costs, bytes, measured latency, and accuracy tested on the same images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fertool.cli.latency_budget import bench_networks
from fertool.errors import FertoolError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.data.dataset import FaceDataset
    from fertool.prune import PrunePlan
    from fertool.spec import InputSpec, Metrics, Spec

Model: TypeAlias = "tuple[Spec, nn.Module]"

_DRAWN = "synth:280"
"""What shows a change where there is no data set: drawn faces, of which the training split counts."""


def measure_changes(
    before: Model, after: Model, val: FaceDataset | None, *, bench: bool
) -> dict[str, Any]:
    """Return, as far as asked for and possible, the paired comparison on the validation images, and the latencies."""
    from fertool.report.console import note

    changes: dict[str, Any] = {}
    if val is not None:
        changes |= _accuracy_change(before, after, val)
    if bench:
        try:
            changes |= _latency_change(before, after, val)
        except FertoolError as error:
            note(f"no latency measured: {error.message}")
    return changes


def _accuracy_change(before: Model, after: Model, val: FaceDataset) -> dict[str, Any]:
    from fertool.metrics import compare_paired

    answers = [_logits(module, val, spec.input).argmax(1) for spec, module in (before, after)]
    first, second = (answer.numpy() == val.labels.numpy() for answer in answers)
    agreement = float((answers[0] == answers[1]).float().mean())
    accuracies = {"accuracy_before": float(first.mean()), "accuracy": float(second.mean())}
    return {**accuracies, **asdict(compare_paired(first, second)), "top1_agreement": agreement}


def measure_unlabeled(before: Model, after: Model) -> dict[str, Any]:
    """Return what can be measured without a data set: how far the answers to drawn faces have changed.

    `top1_agreement`: the fraction of images with the same class before and after; `kl`: the mean KL divergence of the
    new softmax from the old one, in nats; `commonest_share`: the fraction that the class answered most often takes,
    `commonest_class`, with the suffix `_before` of the network as it was. `accuracy` is None: it was not measured.
    """
    from fertool.cli.data import open_source
    from fertool.cli.options import ReadOptions
    from fertool.losses import distillation_kl

    spec = after[0]
    source = open_source(_DRAWN, ReadOptions(), size=spec.input.size, channels=spec.input.channels)
    faces = source.split("train")
    old, new = (_logits(module, faces, one.input) for one, module in (before, after))
    figures = {
        "images": "drawn faces",
        "n": len(faces),
        "accuracy": None,
        "top1_agreement": float((old.argmax(1) == new.argmax(1)).float().mean()),
        "kl": float(distillation_kl(new, old, 1.0)),
    }
    for suffix, logits in (("_before", old), ("", new)):
        counts = logits.argmax(1).bincount(minlength=len(spec.classes))
        figures[f"commonest_class{suffix}"] = spec.classes[int(counts.argmax())]
        figures[f"commonest_share{suffix}"] = float(counts.max() / counts.sum())
    return figures


def warn_of_unlabeled(spec: Spec, figures: dict[str, Any]) -> None:
    """Say that the accuracy of a network pruned without data is unknown, and what is known to be wrong with it.

    `figures` are those of `measure_unlabeled`, or empty where there was data.
    """
    from fertool.report.console import warn

    if not figures:
        return
    warn(
        "accuracy was not measured, and without data and training it will be near chance, "
        f"1 in {len(spec.classes)}: give --data, and --epochs to train"
    )
    if figures["commonest_share"] == 1:
        warn(
            f"the network answers {figures['commonest_class']} to all of {figures['n']} {figures['images']}"
        )


def _latency_change(before: Model, after: Model, val: FaceDataset | None) -> dict[str, Any]:
    """Return seconds of one image in ONNX Runtime on one thread, taken in turns, and their ratio.

    They are medians; of a dynamic network, and of the one beside it, means over images.
    """
    dynamic = after[0].gates is not None
    measured = bench_networks(before, after, images=val if dynamic else None)
    kind = "mean" if dynamic else "median"
    (pair,), (first, second) = (
        measured.comparisons,
        (getattr(entry.latency_s, kind) for entry in measured.results),
    )
    ratio = {"speedup": pair.speedup, "speedup_ci95": pair.speedup_ci95}
    return {"latency_s_before": first, "latency_s": second, **ratio}


def show_changes(
    source: Path, output: Path, before: Spec, after: Spec, changes: dict[str, Any], warning: str
) -> None:
    """Print the table of both files, and a warning where the new network is not measurably faster."""
    from fertool.report.console import note, story
    from fertool.report.tables import change_table

    sides: list[dict[str, Any]] = []
    for file, spec, suffix in ((source, before, "_before"), (output, after, "")):
        measured = {
            key: changes.get(f"{key}{suffix}")
            for key in ("latency_s", "accuracy", "commonest_share")
        }
        sides.append(
            {
                "size_bytes": file.stat().st_size,
                "params": spec.params,
                "macs": spec.macs,
                **measured,
            }
        )
    story(change_table(sides[0], {**changes, **sides[1]}))
    if changes.get("speedup_ci95", (2.0, 2.0))[0] <= 1:
        note(warning)


def measured_metrics(module: nn.Module, val: FaceDataset, input: InputSpec) -> Metrics:
    """Return how a network does on the validation images."""
    from fertool.metrics import evaluate_logits, to_metrics

    return to_metrics(
        evaluate_logits(_logits(module, val, input), val.labels, val.classes), val.split
    )


def _logits(module: nn.Module, images: FaceDataset, input: InputSpec) -> Tensor:
    """Return the logits of all images; where that takes long, say how far it is."""
    from fertool.report.console import progress
    from fertool.train import predict_logits

    with progress(f"{images.split} images", brief=True) as on_progress:
        return predict_logits(module, images, input, on_progress=on_progress)


def write_widths(path: Path, plan: PrunePlan | None) -> None:
    """Write the picture of a plan: the channels of every group, before and after."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.plots.layer_bars import plot_channels

    if plan is not None:
        groups = [
            (name, before, plan.widths.get(name, 0)) for name, before in plan.widths_before.items()
        ]
        write_atomic(path, plot_channels(groups))
