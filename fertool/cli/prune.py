"""`fertool prune`: remove channels until a budget is met."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.change import (
    measure_changes,
    measure_unlabeled,
    show_changes,
    warn_of_unlabeled,
    write_widths,
)
from fertool.cli.data import open_source
from fertool.cli.groups import training_command
from fertool.cli.inputs import require_inputs
from fertool.cli.latency_budget import with_latency
from fertool.cli.options import (
    OUTPUT,
    Bench,
    Device,
    DryRun,
    FineTuneOptions,
    Json,
    ModelFile,
    OptionalData,
    Output,
    ReadOptions,
    Recipe,
    Seed,
)
from fertool.cli.provenance import make_step
from fertool.cli.recovery import recovery
from fertool.cli.schedules import ScheduleChoice, Trainings, measured
from fertool.cli.splits import validation_of
from fertool.cli.targets import parse_floors, parse_target
from fertool.cli.training import TrainingRun, options_of, require_outputs, state_path
from fertool.errors import UsageError
from fertool.workflows.processes import require_one_process

if TYPE_CHECKING:
    from torch import nn

    from fertool.graph.network import Network
    from fertool.prune import PruneOptions, PrunePlan
    from fertool.spec import Spec

PRUNING = "Pruning"
_NOT_FASTER = (
    "the smaller network is not measurably faster here: try --round-to 16, or a smaller budget"
)
_HISTORY = 2048
"""Bytes that the step itself adds to a file's header, at most."""


@dataclass(frozen=True)
class PruningOptions:
    """What to remove, by which measure of importance."""

    target_flops: Annotated[
        str | None,
        typer.Option(
            help="MACs to keep: a ratio (0.5) or a number (20M).",
            metavar="R",
            rich_help_panel=PRUNING,
        ),
    ] = None
    target_params: Annotated[
        str | None,
        typer.Option(
            help="Parameters to keep: a ratio or a number.", metavar="R", rich_help_panel=PRUNING
        ),
    ] = None
    target_size: Annotated[
        str | None,
        typer.Option(
            help="Bytes of the model file to keep: a ratio or a number (800k).",
            metavar="R",
            rich_help_panel=PRUNING,
        ),
    ] = None
    target_latency: Annotated[
        str | None,
        typer.Option(
            help="Latency to keep, in ONNX Runtime on one thread of this machine: a ratio or a time (0.4ms). Networks "
            "of other widths are measured first, then the result, until it is right.",
            metavar="R",
            rich_help_panel=PRUNING,
        ),
    ] = None
    criterion: Annotated[
        Literal["auto", "l1", "l2", "bn-gamma", "l2-gamma", "taylor", "kl"],
        typer.Option(
            help="By weights: l1 and l2, norms of the filters; bn-gamma, the scale behind them; l2-gamma, both. By "
            "images: taylor, change of the loss to first order; kl, change of the output to second order, needs no "
            "labels. auto: kl if there is --data (taylor, its source's, in --schedule prj), else l1.",
            rich_help_panel=PRUNING,
        ),
    ] = "auto"
    normalise: Annotated[
        Literal["auto", "layer", "none"],
        typer.Option(
            help="How scores compare across layers: relative to their layer's, or as they are; auto: as they are where "
            "they are changes of loss or output, else by layer.",
            rich_help_panel=PRUNING,
        ),
    ] = "auto"
    samples: Annotated[
        int,
        typer.Option(
            help="Training images that score the channels.", min=1, rich_help_panel=PRUNING
        ),
    ] = 2048
    round_to: Annotated[
        int | None,
        typer.Option(
            help="Widths become multiples of this. Left out: 16, at which runtimes are fast; with --target-latency the "
            "multiple that measured so.",
            min=1,
            rich_help_panel=PRUNING,
        ),
    ] = None
    prune_blocks: Annotated[
        int,
        typer.Option(
            help="First remove this many whole residual blocks, those without which the answers change least; needs "
            "--data.",
            min=0,
            rich_help_panel=PRUNING,
        ),
    ] = 0
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="A width that must not fall: KEY as --dry-run prints it, with * and ?, or KEY=N, N channels (or a "
            "part, 0.5) of it; repeatable.",
            metavar="KEY[=N]",
            rich_help_panel=PRUNING,
        ),
    ] = None
    local_retrain: Annotated[
        bool | None,
        typer.Option(
            "--local-retrain/--no-local-retrain",
            help="After each cut, let every layer say again what it said before, on the images that scored the "
            "channels. Left out: where there is --data, in the schedules one-shot, iterative and dynamic.",
            rich_help_panel=PRUNING,
        ),
    ] = None
    distill: Annotated[
        bool,
        typer.Option(
            "--distill/--no-distill",
            help="Fine-tune on the unpruned model's answers too.",
            rich_help_panel=PRUNING,
        ),
    ] = True


PlotWidths = Annotated[
    Path | None,
    typer.Option(
        help="Write a PNG of every layer's channels before and after.", rich_help_panel=OUTPUT
    ),
]


@training_command
def prune(
    model: ModelFile,
    output: Output = None,
    data: OptionalData = None,
    pruning: PruningOptions = PruningOptions(),
    schedule: ScheduleChoice = ScheduleChoice(),
    read: ReadOptions = ReadOptions(),
    training: FineTuneOptions = FineTuneOptions(),
    bench: Bench = True,
    plot_widths: PlotWidths = None,
    dry_run: DryRun = False,
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Remove the least important channels of a model until a budget is met, then fine-tune if asked.

    The channels are physically gone, in any architecture: residual sums, depthwise convolutions, SE blocks and
    channel shuffles included. Without --data the weights alone decide.

    Example: fertool prune student.pt --target-flops 0.5 --data fer2013.csv --epochs 10
    """
    from fertool.cli.output import announce, default_output, require_picture
    from fertool.report.console import note, progress

    trains = bool(training.epochs) or schedule.trains_first
    _require_one_process(pruning, schedule, trains=trains and not dry_run)
    output = output or default_output(model, "pruned")
    if not dry_run:
        require_outputs(output, training, model, *read.inputs(data), trains=trains)
        require_picture("--plot-widths", plot_widths, output, model, *read.inputs(data))
    _require_data(data, schedule, training)
    _require_compatible(pruning, schedule)
    require_inputs(model, data=data, read=read)
    from fertool import cost, models
    from fertool import prune as technique

    spec, loaded = models.load_model(model)
    technique.require_float(spec)
    module = models.require_static(loaded)
    # What the header says of the cost, nothing has checked.
    counted = cost.count(module, spec.input)
    spec = replace(spec, params=counted.params, macs=counted.macs)
    options = _options(pruning, schedule, model, spec, module, has_data=data is not None)
    source = None
    if data:
        shape = spec.input
        source = open_source(
            data, read, size=shape.size, channels=shape.channels, classes=spec.classes
        )
        val = validation_of(source)
    else:
        note(
            "no --data: channels are ranked by the size of their weights; images would rank them by the loss"
        )
    scoring = source.split("train").balanced_subset(pruning.samples, seed) if source else None
    schedule.require_budget(None if pruning.target_latency else options.targets)
    if pruning.target_latency:
        state = state_path(output, ".latency") if trains and not dry_run else None
        options = with_latency(
            *(pruning.target_latency, pruning.round_to, spec, module, options, scoring),
            state=state,
            resume=training.resume,
        )
    before = (spec, copy.deepcopy(module))
    net = technique.PruningSession(spec, module, options, scoring, progress)
    net.remove_blocks(pruning.prune_blocks)
    if dry_run:
        _show_plans(schedule.preview(net), json)
        return
    if schedule.trains_first:
        # Better an error now than after the trainings.
        net.require_reachable()
    groups = (
        (pruning, schedule, schedule.own, read, training) if trains else (pruning, schedule, read)
    )
    step = make_step("prune", options_of(*groups), seed, model=spec.digest, data=scoring)

    def tell(written: Spec) -> dict[str, Any]:
        if plot_widths:
            write_widths(plot_widths, net.plan)
        after = (written, net.module)
        changes = measure_changes(before, after, val if source else None, bench=bench)
        unlabeled = {} if source else measure_unlabeled(before, after)
        show_changes(model, output, before[0], written, {**changes, **unlabeled}, _NOT_FASTER)
        warn_of_unlabeled(written, unlabeled)
        if pruning.target_flops and not (
            pruning.target_latency or pruning.prune_blocks or written.gates
        ):
            _compare_with_macs(written.macs / spec.macs, changes)
        return {"plan": _plan_as_json(net.plan), "change": changes, "unlabeled": unlabeled or None}

    if source is None or scoring is None:
        schedule.carry_out(net, None, 0)
        written = models.save_model(output, net.spec.with_step(step), net.module)
        announce(written, output, json, **tell(written))
        return
    run = TrainingRun(source.split("train"), val, training, output, seed, device)
    trainings = Trainings(run, scoring, recovery(before, run, distill=pruning.distill))
    schedule.carry_out(net, trainings, training.epochs)
    if net.spec.metrics is None:
        net.spec = measured(net, run.val)
    run.finish(net.spec, net.module, step, trainings.history, json, tell)


def _require_one_process(
    pruning: PruningOptions, schedule: ScheduleChoice, *, trains: bool
) -> None:
    if not trains:
        require_one_process("prune without --epochs")
    if pruning.target_latency:
        # Each process would go by a clock of its own.
        require_one_process("prune --target-latency")
    if schedule.schedule == "dynamic":
        # A gate's mean cost is that of whole batches.
        require_one_process("prune --schedule dynamic")


def _require_data(data: str | None, schedule: ScheduleChoice, training: FineTuneOptions) -> None:
    """Raise UsageError for a training without images, and for a picture without a training."""
    if data is None and schedule.trains_first:
        raise UsageError(
            f"--schedule {schedule.schedule} needs --data", "for example --data fer2013.csv"
        )
    if data is None and training.epochs:
        raise UsageError(
            f"--epochs {training.epochs}: fine-tuning needs --data",
            "for example --data fer2013.csv",
        )
    if training.plot and not (training.epochs or schedule.trains_first):
        raise UsageError(
            "--plot: without --epochs there is no training to plot", "for example --epochs 5"
        )


def _require_compatible(pruning: PruningOptions, schedule: ScheduleChoice) -> None:
    """Raise UsageError for options that do not go together, before anything is measured."""
    if pruning.prune_blocks and pruning.target_latency:
        raise UsageError(
            f"--prune-blocks {pruning.prune_blocks}: not together with --target-latency",
            "prune twice, blocks first",
        )
    if schedule.schedule == "slimming" and (pruning.criterion, pruning.normalise) != (
        "auto",
        "auto",
    ):
        raise UsageError(
            "--schedule slimming: the BN scales themselves say what goes",
            "leave out --criterion and --normalise",
        )


def _options(
    pruning: PruningOptions,
    schedule: ScheduleChoice,
    file: Path,
    spec: Spec,
    module: Network,
    *,
    has_data: bool,
) -> PruneOptions:
    from fertool.graph.channels import trace_channels
    from fertool.graph.groups import find_groups
    from fertool.prune import ROUND_TO, PruneOptions, Targets, channel_counts

    macs = (
        parse_target("--target-flops", pruning.target_flops, spec.macs)
        if pruning.target_flops
        else None
    )
    params = (
        parse_target("--target-params", pruning.target_params, spec.params)
        if pruning.target_params
        else None
    )
    size = _stored_ratio(pruning.target_size, file, module) if pruning.target_size else None
    targets = None if macs is params is size is None else Targets(macs, params, size)
    if (
        targets is None
        and schedule.max_drop is None
        and not (pruning.target_latency or pruning.prune_blocks)
    ):
        raise UsageError("no budget", "say how much may remain, for example --target-flops 0.5")
    if (
        schedule.schedule == "one-shot"
        and schedule.max_drop is not None
        and (targets or pruning.target_latency)
    ):
        raise UsageError(
            f"--max-drop {schedule.max_drop:g}: one-shot has a budget already",
            "give one of them, or --schedule prj",
        )
    if schedule.schedule == "one-shot" and schedule.max_drop is not None and schedule.steps:
        raise UsageError(
            f"--steps {schedule.steps}: what --max-drop allows goes in one cut",
            "leave it out, or give --target-flops",
        )
    criterion = pruning.criterion
    if criterion == "auto":
        criterion = schedule.criterion if has_data else "l1"
    groups = find_groups(trace_channels(module))
    channels = channel_counts(groups)
    floors = parse_floors(
        pruning.keep or (), channels, dict(zip(groups.names, groups.layers, strict=True))
    )
    retrain = (
        has_data and schedule.repairs if pruning.local_retrain is None else pruning.local_retrain
    )
    return PruneOptions(
        targets,
        criterion,
        pruning.normalise,
        pruning.round_to or ROUND_TO,
        local_retrain=retrain,
        floors=floors,
    )


def _stored_ratio(text: str, file: Path, module: nn.Module) -> float:
    """Return the part of the stored numbers that fits into what --target-size leaves beside the header."""
    size = file.stat().st_size
    ratio = parse_target("--target-size", text, size)
    numbers = sum(
        4 * tensor.numel() for tensor in module.state_dict().values() if tensor.is_floating_point()
    )
    rest = size - numbers + _HISTORY
    if ratio * size <= rest:
        raise UsageError(
            f"--target-size {text}: the file's header alone has about {rest:,} bytes",
            f"at least {rest / size:.2f} of the file's {size:,} bytes are needed",
        )
    return float(min((ratio * size - rest) / numbers, 1 - 1e-9))


def _compare_with_macs(ratio: float, changes: dict[str, Any]) -> None:
    """Say so where the time falls clearly less than the MACs, which the budget was in."""
    from fertool.report.console import note

    taken = 1 / changes.get("speedup", math.inf)
    if 1.2 * ratio < min(taken, 1):
        note(
            f"{ratio:.2f} of the MACs take {taken:.2f} of the time here; for less, give --target-latency "
            f"{1.1 * ratio:.2f} beside --target-flops"
        )


def _plan_as_json(plan: PrunePlan) -> dict[str, Any]:
    return {
        "widths_before": dict(plan.widths_before),
        "widths": dict(plan.widths),
        "macs_before": plan.macs_before,
        "macs": plan.macs,
        "macs_ratio": plan.macs_ratio,
        "params_before": plan.params_before,
        "params": plan.params,
        "params_ratio": plan.params_ratio,
        "latency_ratio": plan.seconds_ratio if plan.seconds_before else None,
        "round_to": plan.round_to,
    }


def _show_plans(plans: list[PrunePlan], json: bool) -> None:
    """Print the plan, or those of the widths that an image may get."""
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result

    if not plans:
        raise UsageError(
            "--dry-run: no budget to plan for",
            "--max-drop finds one only by pruning; give --target-flops",
        )
    if json:
        profiles = [_plan_as_json(plan) for plan in plans]
        alone = profiles[0] if len(profiles) == 1 else {}
        print_json({**alone, "profiles": profiles})
        return
    result(tables.plan_table(plans[0].widths_before, *(plan.widths for plan in plans)))
    for plan in plans:
        result(
            tables.change_table(
                {"params": plan.params_before, "macs": plan.macs_before},
                {"params": plan.params, "macs": plan.macs},
            )
        )
