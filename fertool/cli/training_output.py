"""What the commands that train print and draw in the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fertool.cli.output import announce, require_picture, write_curves

if TYPE_CHECKING:
    from fertool.workflows.training_task import TrainedModel


def require_curves(plot: Path | None, output: Path, *inputs: Path) -> None:
    """Fail before any work when the picture of --plot cannot be drawn or would replace a file."""
    require_picture("--plot", plot, output, *inputs)


def print_trained(model: TrainedModel, output: Path, plot: Path | None, json: bool) -> None:
    """Print the path of a trained model, or as JSON what is known of it; draw its curves.

    Of several processes the first one does it.
    """
    from fertool import distributed
    from fertool.artifact.atomic import write_atomic
    from fertool.report import tables
    from fertool.report.console import story
    from fertool.report.plots.sweep_accuracy import plot_sweep
    from fertool.workflows.sweep import SweepResult

    if not distributed.is_main_process():
        return
    if isinstance(model, SweepResult):
        if plot:
            write_atomic(plot, plot_sweep(model.results))
        story(tables.sweep_table(model.results))
    elif plot:
        write_curves(plot, output.stem, model.history)
    announce(model.summary, json)
