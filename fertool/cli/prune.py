"""`fertool prune`: remove channels until a budget is met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import training_command
from fertool.cli.options import (
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
from fertool.cli.processes import require_one
from fertool.cli.provenance import make_step
from fertool.cli.splits import validation_of
from fertool.cli.targets import parse_target
from fertool.cli.training import TrainingRun, options_of, require_outputs
from fertool.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.losses import ClassificationLoss
    from fertool.prune import PruneOptions, PrunePlan
    from fertool.spec import Metrics, Spec
    from fertool.train import Objective

PRUNING = "Pruning"


@dataclass(frozen=True)
class PruningOptions:
    """What to remove, by which measure of importance."""

    target_flops: Annotated[
        str | None,
        typer.Option(help="MACs to keep: a ratio (0.5) or a number (20M).", metavar="R", rich_help_panel=PRUNING),
    ] = None
    target_params: Annotated[
        str | None,
        typer.Option(help="Parameters to keep: a ratio or a number.", metavar="R", rich_help_panel=PRUNING),
    ] = None
    criterion: Annotated[
        Literal["auto", "l1", "l2", "bn-gamma", "l2-gamma", "taylor", "kl"],
        typer.Option(
            help="By weights: l1 and l2, norms of the filters; bn-gamma, the scale behind them; l2-gamma, both. By "
            "images: taylor, change of the loss to first order; kl, change of the output to second order, needs no "
            "labels. auto: taylor if there is --data, else l1.",
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
    schedule: Annotated[
        Literal["one-shot"], typer.Option(help="one-shot: score, remove, fine-tune.", rich_help_panel=PRUNING)
    ] = "one-shot"
    samples: Annotated[
        int, typer.Option(help="Training images that score the channels.", min=1, rich_help_panel=PRUNING)
    ] = 2048
    round_to: Annotated[
        int,
        typer.Option(help="Widths become multiples of this; runtimes are fast at 16.", min=1, rich_help_panel=PRUNING),
    ] = 16
    distill: Annotated[
        bool,
        typer.Option(
            "--distill/--no-distill", help="Fine-tune on the unpruned model's answers too.", rich_help_panel=PRUNING
        ),
    ] = True


@training_command
def prune(
    model: ModelFile,
    output: Output = None,
    data: OptionalData = None,
    pruning: PruningOptions = PruningOptions(),
    read: ReadOptions = ReadOptions(),
    training: FineTuneOptions = FineTuneOptions(),
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
    from fertool import models
    from fertool import prune as technique
    from fertool.cli.output import announce, default_output
    from fertool.report.console import note, progress

    if dry_run or not training.epochs:
        require_one("prune without --epochs")
    output = output or default_output(model, "pruned")
    if not dry_run:
        require_outputs(output, training, model, *read.inputs(data))
    if data is None and training.epochs:
        raise UsageError(f"--epochs {training.epochs}: fine-tuning needs --data", "for example --data fer2013.csv")
    if training.plot and not training.epochs:
        raise UsageError("--plot: without --epochs there is no training to plot", "for example --epochs 5")
    spec, module = models.load_model(model)
    options = _options(pruning, spec, has_data=data is not None)
    source = None
    if data:
        shape = spec.input
        source = open_source(data, read, size=shape.size, channels=shape.channels, classes=spec.classes)
        val = validation_of(source)
    else:
        note("no --data: channels are ranked by the size of their weights; images would rank them by the loss")
    scoring = source.split("train").balanced_subset(pruning.samples, seed) if source else None
    with progress("scores") as on_progress:
        if dry_run:
            _show_plan(technique.plan(spec, module, options, scoring, on_progress=on_progress), json)
            return
        pruned = technique.prune(spec, module, options, scoring, on_progress=on_progress)
    groups = (pruning, read, training) if training.epochs else (pruning, read)
    step = make_step("prune", options_of(*groups), seed, model=spec.digest, data=scoring)
    smaller = replace(spec, widths=dict(pruned.widths), metrics=None)
    extra = {"plan": _plan_as_json(pruned.plan)}
    if source is None:
        announce(models.save_model(output, smaller.with_step(step), pruned.module), output, json, **extra)
        return
    run = TrainingRun(source.split("train"), val, training, output, seed, device)
    if training.epochs:
        objective = _teacher(spec, module, device, run.loss) if pruning.distill else None
        smaller, history = run.fit(smaller, pruned.module, objective)
    else:
        smaller, history = replace(smaller, metrics=_measure(smaller, pruned.module, run.val)), []
    written = run.finish(smaller, pruned.module, step, history, json, **extra)
    _show_change(spec, written)


def _options(pruning: PruningOptions, spec: Spec, *, has_data: bool) -> PruneOptions:
    from fertool.prune import PruneOptions, Targets

    if pruning.target_flops is None and pruning.target_params is None:
        raise UsageError("no budget", "say how much may remain: --target-flops 0.5 or --target-params 0.5")
    macs = parse_target("--target-flops", pruning.target_flops, spec.macs) if pruning.target_flops else None
    params = parse_target("--target-params", pruning.target_params, spec.params) if pruning.target_params else None
    criterion = pruning.criterion
    if criterion == "auto":
        criterion = "taylor" if has_data else "l1"
    return PruneOptions(Targets(macs=macs, params=params), criterion, pruning.normalise, pruning.round_to)


def _teacher(spec: Spec, module: nn.Module, device: str, loss: ClassificationLoss) -> Objective:
    """The unpruned model as the teacher of its own recovery, at recipe 1's temperature and alpha."""
    from fertool.device import resolve_device
    from fertool.distill import KnowledgeDistillation, Teacher

    teacher = Teacher(module.to(resolve_device(device)), spec.input, spec.classes)
    return KnowledgeDistillation([teacher], input=spec.input, classes=spec.classes, loss=loss)


def _measure(spec: Spec, module: nn.Module, val: FaceDataset) -> Metrics:
    from fertool.metrics import evaluate_logits, to_metrics
    from fertool.train import predict_logits

    logits = predict_logits(module, val, spec.input)
    return to_metrics(evaluate_logits(logits, val.labels, val.classes), val.split)


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
        "round_to": plan.round_to,
    }


def _show_plan(plan: PrunePlan, json: bool) -> None:
    from fertool.cli.output import print_json
    from fertool.report import tables
    from fertool.report.console import result

    if json:
        print_json(_plan_as_json(plan))
        return
    result(tables.plan_table((name, plan.widths_before[name], width) for name, width in plan.widths.items()))
    result(
        tables.change_table(
            {"params": plan.params_before, "macs": plan.macs_before}, {"params": plan.params, "macs": plan.macs}
        )
    )


def _show_change(before: Spec, after: Spec) -> None:
    from fertool.report.console import note

    parts = [f"MACs {after.macs / before.macs:.3f}", f"parameters {after.params / before.params:.3f} of the input's"]
    if before.metrics and after.metrics and before.metrics.split == after.metrics.split:
        parts.append(f"{after.metrics.split} accuracy {before.metrics.accuracy:.3f} -> {after.metrics.accuracy:.3f}")
    note(", ".join(parts))
