"""Accuracy at a budget of MACs: fertool's pruning beside Torch-Pruning's, then the same fine-tuning
for all.

    pip install torch-pruning==1.6.1
    python benchmarks/pruners.py MODEL.pt --data fer2013.csv --epochs 3 --seeds 0,1,2 \\
        -o pruners.json

What is pruned is the same file; the channels are scored on the same images; the budget is met from
below as nearly as the widths, multiples of 16 everywhere, allow. Every network then has the same
training, distilled from the unpruned one, in fertool's loop. `fertool` is `prune --target-flops` as
it comes, `unrepaired` leaves out the repair of the layers. The other methods are Torch-Pruning's
importances; each runs with channels ranked over the whole network and layer by layer: both with the
first seed, and the better of the two with the other seeds. Rows that the output has already are
kept; those of `--rows`, made elsewhere with the same options, are added.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.artifact.atomic import write_atomic
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, FaceDataset, open_data
from fertool.data.pixels import to_input
from fertool.distillation import KnowledgeDistillation, Teacher
from fertool.losses import cross_entropy
from fertool.metrics import evaluate_logits
from fertool.models import load_model
from fertool.models.build import require_static
from fertool.pruning import Constraints, Targets, prune
from fertool.spec import InputSpec, Spec
from fertool.training import TrainConfig, fit, predict_logits

OURS = {"fertool": "fertool", "unrepaired": "fertool, not repaired"}
CRITERION = "kl"
RANKINGS = ("global", "by layer")
BATCH = 64
ROUND_TO = 16
FLOOR = 0.9
"""Largest share of a layer's channels that Torch-Pruning may take; fertool's own floor."""


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    spec, module = load_model(options.model)
    source = open_data(
        options.data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes)
    )
    train, val = source.split("train"), source.split("val")
    report = open_report(options, spec, module, val)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    pruned = functools.cache(
        partial(pruned_by, options, spec, module, train.balanced_subset(options.samples, 0))
    )
    run = partial(row_of, options, report, spec, module, train, val, pruned)
    for method in options.methods.split(","):
        if method in OURS:
            better = OURS[method]
        else:
            tried = {
                ranking: run(f"{method}, {ranking}", seeds[0])["accuracy"] for ranking in RANKINGS
            }
            better = f"{method}, {max(RANKINGS, key=lambda ranking: tried[ranking])}"
        for seed in seeds:
            run(better, seed)
    write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--target", type=float, default=0.5, help="part of the MACs that stays")
    parser.add_argument(
        "--methods", default="fertool,taylor,magnitude,lamp", help="separated by commas"
    )
    parser.add_argument("--samples", type=int, default=2048, help="images that score the channels")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="*",
        default=(),
        help="outputs of other runs with the same options",
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def open_report(
    options: argparse.Namespace, spec: Spec, module: nn.Module, val: FaceDataset
) -> dict[str, Any]:
    """Return the report to go on with, or a new one."""
    head = {
        "model": {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest},
        "data": Path(options.data).name,
        **{name: getattr(options, name) for name in ("target", "samples", "epochs", "lr")},
        "n": len(val),
    }
    found = [*([options.output] if options.output.exists() else []), *options.rows]
    reports: list[dict[str, Any]] = [json.loads(path.read_text()) for path in found]
    for path, report in zip(found, reports, strict=True):
        if {name: report[name] for name in head} != head:
            raise SystemExit(f"{path} is of another model or of other options")
    if reports:
        rows = {(row["method"], row["seed"]): row for report in reports for row in report["rows"]}
        return {**reports[0], "rows": list(rows.values())}
    counted = cost.count(module, spec.input)
    return {
        **head,
        "macs": counted.macs,
        "params": counted.params,
        "accuracy": accuracy(module, val, spec.input),
        "rows": [],
    }


@dataclass(frozen=True)
class Pruned:
    """A smaller network that no method has trained yet, and how long it took to make."""

    module: nn.Module
    seconds: float


def pruned_by(
    options: argparse.Namespace, spec: Spec, module: nn.Module, scoring: FaceDataset, method: str
) -> Pruned:
    """Return the network at the budget by a method's name."""
    start = time.perf_counter()
    if method in OURS.values():
        selection = SelectionConfig(
            criterion=CRITERION, round_to=ROUND_TO, reconstruct=method == OURS["fertool"]
        )
        constraints = Constraints(Targets(macs=options.target))
        smaller: nn.Module = prune(
            spec, require_static(module), constraints, selection, scoring
        ).module
    else:
        importance, ranking = method.split(", ")
        smaller = prune_by_rival(importance, ranking, module, spec.input, scoring, options.target)
    return Pruned(smaller, time.perf_counter() - start)


def row_of(
    options: argparse.Namespace,
    report: dict[str, Any],
    spec: Spec,
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    pruned: Callable[[str], Pruned],
    method: str,
    seed: int,
) -> dict[str, Any]:
    """Return the row of a method and a seed, pruned and trained now if there is none yet."""
    for row in report["rows"]:
        if (row["method"], row["seed"]) == (method, seed):
            known: dict[str, Any] = row
            return known
    made = pruned(method)
    smaller = copy.deepcopy(made.module)
    counted, before = cost.count(smaller, spec.input), accuracy(smaller, val, spec.input)
    result = recover(smaller, module, spec, train, val, options, seed)
    row = {
        "method": method,
        "seed": seed,
        "macs_ratio": counted.macs / report["macs"],
        "params_ratio": counted.params / report["params"],
        "untrained_accuracy": before,
        "accuracy": result,
        "pruning_s": made.seconds,
    }
    report["rows"].append(row)
    print(json.dumps(row), flush=True)
    write_atomic(options.output, json.dumps(report, indent=1).encode())
    return row


def recover(
    pruned: nn.Module,
    unpruned: nn.Module,
    spec: Spec,
    train: FaceDataset,
    val: FaceDataset,
    options: argparse.Namespace,
    seed: int,
) -> float:
    """Train in place.

    Returns the accuracy of the last epoch, so that nothing is chosen on these images.
    """
    teacher = Teacher(copy.deepcopy(unpruned).to(options.device), spec.input, spec.classes)
    config = TrainConfig(
        epochs=options.epochs, batch_size=128, lr=options.lr, warmup_epochs=0.5, seed=seed
    )
    objective = KnowledgeDistillation([teacher], input=spec.input, classes=spec.classes)
    done = fit(pruned, train, val, spec.input, config, objective=objective, device=options.device)
    return done.history[-1].val_accuracy


def prune_by_rival(
    importance: str,
    ranking: str,
    module: nn.Module,
    input: InputSpec,
    scoring: FaceDataset,
    target: float,
) -> nn.Module:
    """Return the smaller network by Torch-Pruning:
    the largest that its one ratio gives under the budget.
    """
    gradients = loss_gradients(module, input, scoring) if importance == "taylor" else {}
    whole = cost.count(module, input).macs
    attempt = partial(cut_by_rival, importance, ranking, module, input, gradients)
    best, low, high = None, 0.0, 1.0
    for _ in range(10):
        ratio = (low + high) / 2
        pruned = attempt(ratio)
        fits = cost.count(pruned, input).macs <= target * whole
        best, low, high = (pruned, low, ratio) if fits else (best, ratio, high)
    if best is None:
        raise SystemExit(f"{importance}, {ranking}: no ratio meets {target}")
    return best


def cut_by_rival(
    importance: str,
    ranking: str,
    module: nn.Module,
    input: InputSpec,
    gradients: dict[str, Tensor],
    ratio: float,
) -> nn.Module:
    import torch_pruning as tp

    measures: dict[str, Callable[[], Any]] = {
        "taylor": tp.importance.GroupTaylorImportance,
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "lamp": tp.importance.LAMPImportance,
    }
    pruned = copy.deepcopy(module)
    for name, parameter in pruned.named_parameters():
        parameter.grad = gradients.get(name)
    last = [layer for layer in pruned.modules() if isinstance(layer, nn.Linear)][-1]
    tp.pruner.BasePruner(
        pruned,
        torch.zeros(1, input.channels, input.size, input.size),
        importance=measures[importance](),
        global_pruning=ranking == "global",
        pruning_ratio=ratio,
        max_pruning_ratio=FLOOR,
        ignored_layers=[last],
        round_to=ROUND_TO,
    ).step()
    pruned.zero_grad(set_to_none=True)
    return pruned


def loss_gradients(module: nn.Module, input: InputSpec, scoring: FaceDataset) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy over the scoring images,
    as its Taylor importance wants.
    """
    total = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    targets = scoring.targets()
    for start in range(0, len(scoring), BATCH):
        part = slice(start, start + BATCH)
        loss = cross_entropy(module(to_input(scoring.images[part], input)), targets[part])
        found = torch.autograd.grad(loss, list(module.parameters()))
        for name, gradient in zip(total, found, strict=True):
            total[name] += gradient * len(targets[part]) / len(scoring)
    return total


def accuracy(module: nn.Module, val: FaceDataset, input: InputSpec) -> float:
    """Return the share of the validation images that are classified rightly."""
    return evaluate_logits(predict_logits(module, val, input), val.labels, val.classes).accuracy


if __name__ == "__main__":
    main()
