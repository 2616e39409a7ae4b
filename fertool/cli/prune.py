"""`fertool prune`: remove channels until a budget is met."""

from __future__ import annotations

from fertool.cli.options import Bench, DryRun, Json, ModelFile, OptionalData, Output, Recipe
from fertool.cli.reporting import CONSOLE
from fertool.config.pictures import PrunePictures
from fertool.config.pruning import PruneConfig
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig

_NOT_FASTER = (
    "the smaller network is not measurably faster here: try --round-to 16, or a smaller budget"
)


def prune(
    model: ModelFile,
    config: PruneConfig = PruneConfig(),
    output: Output = None,
    data: OptionalData = None,
    read: ReadConfig = ReadConfig(),
    run: RunConfig = RunConfig(),
    bench: Bench = True,
    pictures: PrunePictures = PrunePictures(),
    dry_run: DryRun = False,
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Remove the least important channels of a model until a budget is met, then fine-tune it.

    The channels are physically gone, in any architecture: residual sums, depthwise convolutions,
    SE blocks and channel shuffles included. Without --data the weights alone decide.

    Example: fertool prune student.pt --target-flops 0.5 --data fer2013.csv --epochs 10
    """
    from fertool.cli.output import print_changed, print_preview
    from fertool.results import PrunePreview
    from fertool.workflows.data import open_data
    from fertool.workflows.model import load
    from fertool.workflows.outputs import default_output, require_outputs
    from fertool.workflows.prune import plan_pruning, prune
    from fertool.workflows.pruning_requirements import require_possible

    output = output or default_output(model, "pruned")
    require_possible(config, pictures, has_data=data is not None, is_preview=dry_run)
    faces = open_data(data, read, reporter=CONSOLE) if data else None
    if dry_run:
        plans = plan_pruning(load(model), faces, config, run=run, reporter=CONSOLE)
        print_preview(PrunePreview(profiles=tuple(plan.summary for plan in plans)), json)
        return
    # Before PyTorch is imported, which takes long too.
    require_outputs(output, [model, *(faces.files if faces else [])], trains=config.trains)
    pruned = prune(
        load(model),
        faces,
        config,
        output=output,
        bench=bench,
        pictures=pictures,
        run=run,
        reporter=CONSOLE,
    )
    print_changed(pruned, _NOT_FASTER, json)
