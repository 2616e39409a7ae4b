"""What a step did to a model: costs, bytes, measured latency, and accuracy tested on the same images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fertool.cli.latency import bench_networks
from fertool.errors import FertoolError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.prune import PrunePlan
    from fertool.spec import Spec

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

    answers = (predict_logits(module, val, spec.input).argmax(1) for spec, module in (before, after))
    first, second = (answer.numpy() == val.labels.numpy() for answer in answers)
    accuracies = {"accuracy_before": float(first.mean()), "accuracy": float(second.mean())}
    return {**accuracies, **asdict(compare_paired(first, second))}


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


def show_changes(source: Path, output: Path, before: Spec, after: Spec, changes: dict[str, Any]) -> None:
    """Print the table of both files, and a warning where the smaller network is not faster."""
    from fertool.report.console import note, story
    from fertool.report.tables import change_table

    sides = []
    for file, spec, suffix in ((source, before, "_before"), (output, after, "")):
        measured = {key: changes.get(f"{key}{suffix}") for key in ("latency_s", "accuracy")}
        sides.append({"size_bytes": file.stat().st_size, "params": spec.params, "macs": spec.macs, **measured})
    story(change_table(sides[0], {**changes, **sides[1]}))
    if changes.get("speedup_ci95", (2.0, 2.0))[0] <= 1:
        note("the smaller network is not measurably faster here: try --round-to 16, or a smaller budget")


def tell_int8_latency(changes: dict[str, Any]) -> None:
    """Say what the integers are worth on this machine, above all when they are not faster."""
    from fertool.report.console import note

    if "speedup" not in changes:
        return
    low, high = changes["speedup_ci95"]
    note(
        f"INT8 is {changes['speedup']:.2f} x as fast as float here, one thread (95 % interval {low:.2f} to {high:.2f})"
    )
    if low <= 1:
        note("INT8 is not measurably faster on this machine: it may lack VNNI, or the network be too small to gain")


def require_picture(path: Path | None, *others: Path) -> None:
    """Fail before any work when the picture cannot be written or would replace a file of the command."""
    from fertool.artifact.atomic import require_writable
    from fertool.report.figures import require_matplotlib

    if path is None:
        return
    if path.resolve() in {other.resolve() for other in others}:
        raise UsageError(f"--plot-widths {path}: the model goes there", "name another file, for example widths.png")
    require_writable(path)
    require_matplotlib()


def write_widths(path: Path, plan: PrunePlan | None) -> None:
    """Write the picture of a plan: the channels of every group, before and after."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.figures import width_bars

    if plan is not None:
        groups = [(group, count, plan.widths[group]) for group, count in plan.widths_before.items()]
        write_atomic(path, width_bars(groups))
