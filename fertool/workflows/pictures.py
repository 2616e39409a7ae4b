"""Draw what a workflow has done into the files that were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from fertool.artifact.atomic import require_writable, write_atomic
from fertool.config.pictures import (
    CorruptionPictures,
    CurvePictures,
    PrunePictures,
    QuantizePictures,
    TracePictures,
    pictures_of,
)
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.hessian import Sensitivity
    from fertool.results import Epoch, Evaluation, SweepResults
    from fertool.workflows.model import Model
    from fertool.workflows.prune import PrunedModel
    from fertool.workflows.quantize import QuantizedModel


def require_pictures(pictures: Any, output: Path | None, inputs: Iterable[Path]) -> None:
    """Fail before any work when a picture cannot be drawn or written, or would replace a file."""
    from fertool.report.plots.drawing import require_matplotlib

    # Two pictures must not have the same file either.
    taken = list(inputs)
    for name, path in pictures_of(pictures).items():
        require_writable(path, *taken)
        if output is not None and path.resolve() == output.resolve():
            raise UsageError(
                f"``{name}={path}``: the result goes there",
                "name another file, for example picture.png",
            )
        require_matplotlib()
        taken.append(path)


def draw_training(pictures: CurvePictures, model: Model, history: Sequence[Epoch]) -> None:
    """Draw the curves of a model's trainings."""
    from fertool.report.plots.training_curves import plot_training_curves, split_rounds

    if _is_wanted(pictures.plot):
        # In Python a model need not be in a file.
        name = model.path.stem if model.path else model.spec.arch
        write_atomic(pictures.plot, plot_training_curves(split_rounds(name, history)))


def draw_sweep(pictures: CurvePictures, results: SweepResults) -> None:
    """Draw the accuracies of all trials of a sweep."""
    from fertool.report.plots.sweep_accuracy import plot_sweep

    if _is_wanted(pictures.plot):
        write_atomic(pictures.plot, plot_sweep(results))


def draw_pruning(pictures: PrunePictures, pruned: PrunedModel) -> None:
    """Draw the curves of the fine-tuning, and the channels of every group before and after."""
    from fertool.report.plots.layer_bars import plot_channels

    draw_training(pictures, pruned, pruned.history)
    if _is_wanted(pictures.plot_widths):
        write_atomic(pictures.plot_widths, plot_channels(pruned.plan.groups))


def draw_quantization(pictures: QuantizePictures, quantized: QuantizedModel) -> None:
    """Draw the curves of the training, and the bits of each layer."""
    from fertool.report.plots.layer_bars import FLOAT_BITS, plot_bits

    draw_training(pictures, quantized, quantized.history)
    if _is_wanted(pictures.plot_bits):
        layers = quantized.layer_bits.items()
        bits = [(name, bits or (FLOAT_BITS,)) for name, bits in layers]
        write_atomic(pictures.plot_bits, plot_bits(bits))


def draw_traces(pictures: TracePictures, found: Sensitivity) -> None:
    """Draw the traces by layer and channel."""
    from fertool.report.plots.trace_strips import plot_sensitivity

    if _is_wanted(pictures.plot):
        write_atomic(pictures.plot, plot_sensitivity(found))


def draw_corruptions(pictures: CorruptionPictures, results: Sequence[Evaluation]) -> None:
    """Draw the accuracy of evaluated files by corruption and level."""
    from fertool.report.plots.corruption_curves import plot_corruptions

    if _is_wanted(pictures.plot):
        write_atomic(pictures.plot, plot_corruptions(results))


def _is_wanted(path: Path | None) -> TypeGuard[Path]:
    from fertool import distributed

    # Of several processes the first one writes all files.
    return path is not None and distributed.is_main_process()
