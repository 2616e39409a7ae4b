"""What a step did to a model: costs, bytes, measured latency, and accuracy tested on the same images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fertool.cli.latency import bench_networks
from fertool.errors import FertoolError

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.prune import PrunePlan
    from fertool.spec import InputSpec, Metrics, Spec

Model: TypeAlias = "tuple[Spec, nn.Module]"


def measure_changes(before: Model, after: Model, val: FaceDataset | None, *, bench: bool) -> dict[str, Any]:
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
    from fertool.train import predict_logits

    answers = [predict_logits(module, val, spec.input).argmax(1) for spec, module in (before, after)]
    first, second = (answer.numpy() == val.labels.numpy() for answer in answers)
    agreement = float((answers[0] == answers[1]).float().mean())
    accuracies = {"accuracy_before": float(first.mean()), "accuracy": float(second.mean())}
    return {**accuracies, **asdict(compare_paired(first, second)), "top1_agreement": agreement}


def _latency_change(before: Model, after: Model, val: FaceDataset | None) -> dict[str, Any]:
    """Return seconds of one image in ONNX Runtime on one thread, taken in turns, and their ratio.

    They are medians; of a dynamic network, and of the one beside it, means over images.
    """
    dynamic = after[0].gates is not None
    measured = bench_networks(before, after, images=val if dynamic else None)
    kind = "mean" if dynamic else "median"
    (pair,), (first, second) = measured.comparisons, (getattr(entry.latency_s, kind) for entry in measured.results)
    ratio = {"speedup": pair.speedup, "speedup_ci95": pair.speedup_ci95}
    return {"latency_s_before": first, "latency_s": second, **ratio}


def show_changes(source: Path, output: Path, before: Spec, after: Spec, changes: dict[str, Any], warning: str) -> None:
    """Print the table of both files, and a warning where the new network is not measurably faster."""
    from fertool.report.console import note, story
    from fertool.report.tables import change_table

    sides = []
    for file, spec, suffix in ((source, before, "_before"), (output, after, "")):
        measured = {key: changes.get(f"{key}{suffix}") for key in ("latency_s", "accuracy")}
        sides.append({"size_bytes": file.stat().st_size, "params": spec.params, "macs": spec.macs, **measured})
    story(change_table(sides[0], {**changes, **sides[1]}))
    if changes.get("speedup_ci95", (2.0, 2.0))[0] <= 1:
        note(warning)


def measured_metrics(module: nn.Module, val: FaceDataset, input: InputSpec) -> Metrics:
    """Return how a network does on the validation images."""
    from fertool.metrics import evaluate_logits, to_metrics
    from fertool.train import predict_logits

    return to_metrics(evaluate_logits(predict_logits(module, val, input), val.labels, val.classes), val.split)


def write_widths(path: Path, plan: PrunePlan | None) -> None:
    """Write the picture of a plan: the channels of every group, before and after."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.bars import width_bars

    if plan is not None:
        groups = [(group, count, plan.widths[group]) for group, count in plan.widths_before.items()]
        write_atomic(path, width_bars(groups))


def write_bits(path: Path, spec: Spec) -> None:
    """Write the picture of a quantised model: how many channels of each layer have how many bits."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.bars import bit_bars

    if spec.quant is not None:
        write_atomic(path, bit_bars([(name, rule.bits) for name, rule in spec.quant.weights.items()]))
