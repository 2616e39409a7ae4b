"""What half the MACs are worth in ONNX Runtime: each architecture pruned in several ways against
its unpruned self.

    python benchmarks/prune_speed.py --round-to 1,16 --latency 0.55 --size 48,96 -o prune_speed.json
    python benchmarks/prune_speed.py A.pt B.pt --data fer2013.csv --round-to 16 -o prune_speed.json

Widths come from rounding alone, or, with --latency, from `--target-flops` and `--target-latency`
together, which measures this machine first. Networks that nobody has trained are pruned by the
sizes of their random weights, those of files by KL on images, as `fertool prune` does by default:
which widths go decides on the speed. The files of one network are timed interleaved, on one thread.
Rows that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from settling import CLASSES

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, FaceDataset, open_data
from fertool.errors import FertoolError
from fertool.exporting import export_model
from fertool.graph.network import Network
from fertool.models import architecture_names, create, load_model
from fertool.models.build import require_static
from fertool.pruning import Constraints, PruneResult, Targets, prune
from fertool.runtime import BenchConfig, bench
from fertool.spec import InputSpec, Spec
from fertool.workflows.latency_budget import LatencySearch


def main() -> None:
    options = parse_args()
    torch.set_num_threads(1)
    asked = {"target": options.target, "round_to": options.round_to, "latency": options.latency}
    report: dict[str, Any] = {**asked, "rows": []}
    if options.output and options.output.exists():
        report = json.loads(options.output.read_text())
        if {name: report[name] for name in asked} != asked:
            raise SystemExit(f"{options.output} is of other options")
    for trained, spec, module in networks(options):
        head = {
            "arch": spec.arch,
            "size": spec.input.size,
            "trained": trained,
            "digest": spec.digest,
        }
        if any(head.items() <= row.items() for row in report["rows"]):
            continue
        report["rows"].append(
            {**head, **measure(spec, module, scoring(spec, options) if trained else None, options)}
        )
        print(line(report["rows"][-1]), flush=True)
        if options.output:
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", type=Path, nargs="*", help="trained networks, .pt files, instead of --arch"
    )
    parser.add_argument("--data", help="images that score the channels of trained networks")
    parser.add_argument("--samples", type=int, default=2048, help="how many of them")
    parser.add_argument(
        "--arch", default=",".join(architecture_names()), help="architectures, separated by commas"
    )
    parser.add_argument("--round-to", default="1,16", help="roundings, separated by commas")
    parser.add_argument("--latency", type=float, help="also prune with this --target-latency")
    parser.add_argument(
        "--size", default="48", help="sides of the input in pixels, separated by commas"
    )
    parser.add_argument("--target", type=float, default=0.5, help="part of the MACs to keep")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    if options.models and not options.data:
        parser.error("trained networks need --data")
    return options


def networks(options: argparse.Namespace) -> Iterator[tuple[bool, Spec, Network]]:
    """Yield the networks to prune, and whether they are trained."""
    for path in options.models:
        spec, loaded = load_model(path)
        yield True, spec, require_static(loaded)
    for size in map(int, options.size.split(",")) if not options.models else ():
        for arch in options.arch.split(","):
            torch.manual_seed(0)
            spec, module = create(arch, {}, InputSpec(size=size), CLASSES)
            yield False, spec, module.eval()


def scoring(spec: Spec, options: argparse.Namespace) -> FaceDataset:
    """Return the images that score the channels of a trained network."""
    reading = DataOptions(size=spec.input.size, channels=spec.input.channels, classes=spec.classes)
    return open_data(options.data, reading).split("train").balanced_subset(options.samples, 0)


def line(row: dict[str, Any]) -> str:
    """Return a row as text."""
    cells = (
        f"{entry['rule']} {entry['speedup']:.2f} ({entry['macs_ratio']:.3f})"
        for entry in row["pruned"]
    )
    return (
        f"{row['arch']:20} {row['size']:3} px {row['latency_s'] * 1e3:8.3f} ms  {', '.join(cells)}"
    )


def measure(
    spec: Spec, module: Network, data: FaceDataset | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Prune one network by each rule, and time the results interleaved with it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "unpruned.onnx"]
        paths[0].write_bytes(export_model(spec, module, ExportConfig()))
        pruned = []
        for rule, result in pruned_networks(spec, module, data, options):
            pruned.append((rule, result.plan))
            paths.append(Path(folder) / f"{len(paths)}.onnx")
            smaller = replace(spec, graph=result.module.graph)
            paths[-1].write_bytes(export_model(smaller, result.module, ExportConfig()))
        timed = bench(
            paths, BenchConfig(warmup=30, runs=options.runs, threads=1, memory=False, starts=0)
        )
    rows = [
        {
            "rule": rule,
            "round_to": plan.round_to,
            "macs_ratio": plan.macs_ratio,
            "params_ratio": plan.params_ratio,
            "speedup": compared.speedup,
            "speedup_ci95": compared.speedup_ci95,
        }
        for (rule, plan), compared in zip(pruned, timed.comparisons, strict=True)
    ]
    return {"latency_s": timed.results[0].latency_s.median, "pruned": rows}


def pruned_networks(
    spec: Spec, module: Network, data: FaceDataset | None, options: argparse.Namespace
) -> Iterator[tuple[str, PruneResult]]:
    """Prune by each rule that can meet the budget.

    Weights, which take no time, are not reconstructed.
    """
    constraints = Constraints(Targets(macs=options.target))
    plain = SelectionConfig(reconstruct=False)

    def by_the_clock() -> tuple[Constraints, SelectionConfig]:
        search = LatencySearch(spec, module, constraints, plain, data)
        return search.run(str(options.latency), state=None, resume=False)

    def rounded(number: int) -> tuple[Constraints, SelectionConfig]:
        return constraints, replace(plain, round_to=number)

    rules: dict[str, Callable[[], tuple[Constraints, SelectionConfig]]] = {}
    for number in options.round_to.split(","):
        rules[f"--round-to {number}"] = partial(rounded, int(number))
    if options.latency:
        rules[f"--target-latency {options.latency:g}"] = by_the_clock
    for rule, choose in rules.items():
        try:
            asked, selection = choose()
            yield rule, prune(spec, module, asked, selection, data)
        except FertoolError as error:
            print(f"{spec.arch} {rule}: {error}")


if __name__ == "__main__":
    main()
