"""`fertool prune`: remove channels until a budget is met."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fertool.cli.groups import training_command
from fertool.cli.options import (
    OUTPUT,
    Bench,
    Curves,
    DryRun,
    Json,
    ModelFile,
    OptionalData,
    Output,
    Recipe,
)
from fertool.cli.reporting import CONSOLE
from fertool.config.pruning import PruneConfig
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig
from fertool.errors import UsageError

if TYPE_CHECKING:
    from fertool.pruning import PrunePlan

_NOT_FASTER = (
    "the smaller network is not measurably faster here: try --round-to 16, or a smaller budget"
)


@training_command
def prune(
    model: ModelFile,
    config: PruneConfig = PruneConfig(),
    output: Output = None,
    data: OptionalData = None,
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    bench: Bench = True,
    plot: Curves = None,
    plot_widths: Annotated[
        Path | None,
        typer.Option(
            help="Write a PNG of every layer's channels before and after.", rich_help_panel=OUTPUT
        ),
    ] = None,
    dry_run: DryRun = False,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Remove the least important channels of a model until a budget is met, then fine-tune it.

    The channels are physically gone, in any architecture: residual sums, depthwise convolutions,
    SE blocks and channel shuffles included. Without --data the weights alone decide.

    Example: fertool prune student.pt --target-flops 0.5 --data fer2013.csv --epochs 10
    """
    from fertool.cli.output import (
        announce,
        default_output,
        print_change,
        print_preview,
        require_pictures,
        write_curves,
    )
    from fertool.results import PrunePreview
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import require_outputs
    from fertool.workflows.prune import plan_pruning, prune, require_data, require_processes

    output = output or default_output(model, "pruned")
    # Before the data are opened, which takes long.
    require_processes(config, is_preview=dry_run)
    require_data(config, has_data=data is not None)
    faces = open_data(data, read, reporter=CONSOLE) if data else None
    if dry_run:
        plans = plan_pruning(load(model), faces, config, run=run, reporter=CONSOLE)
        print_preview(PrunePreview(profiles=tuple(plan.summary for plan in plans)), json)
        return
    inputs = [model, *(faces.files if faces else [])]
    require_outputs(output, inputs, trains=config.trains)
    _require_training(plot, config)
    require_pictures({"--plot": plot, "--plot-widths": plot_widths}, output, inputs)
    pruned = prune(
        load(model), faces, config, output=output, bench=bench, run=run, reporter=CONSOLE
    )
    if pruned.path is None:
        return  # Another process has written the model.
    write_curves(plot, output.stem, pruned.history)
    _write_widths(plot_widths, pruned.plan)
    print_change(pruned, _NOT_FASTER)
    announce(pruned.summary, json)


def _require_training(plot: Path | None, config: PruneConfig) -> None:
    """Raise UsageError for curves of a training that there is not."""
    if plot and not (config.training.epochs or config.scheduling.trains_first):
        raise UsageError(
            "--plot: without --epochs there is no training to plot", "for example --epochs 5"
        )


def _write_widths(path: Path | None, plan: PrunePlan) -> None:
    """Write the picture of the channels of every group, before and after."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.plots.layer_bars import plot_channels

    if path is not None:
        write_atomic(path, plot_channels(plan.groups))
