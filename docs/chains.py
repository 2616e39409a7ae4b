"""The tables of docs/results.md on whole chains, distillation and architectures."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tables import (
    accuracy_with_interval,
    interval,
    load,
    millions,
    milliseconds,
    percent,
    ratio,
    spread,
    table,
    without_duplicates,
)

from fertool.config.corruptions import REFERENCE
from fertool.models.architecture import resolve_arch_args

NANO = "c32s2-1basic-c64s2-2basic-c96s2-2basic"
"""The plan of the zoo's `nano_resnet`, as benchmarks/native.py writes it."""


def stages_table(
    evaluation: dict[str, Any], benchmark: dict[str, Any], more: list[tuple[str, ...]] | None = None
) -> str:
    """Accuracy, cost and speed of every stage; `more` are further rows."""
    measured = {Path(row["file"]).stem: row for row in benchmark["results"]}
    speedups = {Path(row["candidate"]).stem: row for row in benchmark["comparisons"]}
    rows = []
    for entry in evaluation["results"]:
        stage = Path(entry["file"]).stem
        bench = measured[stage]
        faster = "1"
        if stage in speedups:
            faster = ratio(speedups[stage]["speedup"], speedups[stage]["speedup_ci95"])
        rows.append(
            (
                stage,
                f"{millions(bench['params'], 3)} M",
                f"{millions(bench['macs'], 1)} M",
                f"{bench['size_bytes']:,}",
                accuracy_with_interval(entry),
                without_duplicates(entry),
                f"{entry['macro_f1']:.3f}",
                milliseconds(bench["latency_s"]["median"]),
                faster,
            )
        )
    heads = (
        "stage",
        "params",
        "MACs",
        "bytes",
        "accuracy",
        "without duplicates",
        "macro F1",
        "latency",
        "speed-up",
    )
    return table(heads, [*rows, *(more or [])])


def epochs_of(file: str) -> int:
    """Return how many epochs a history file of docs/results/ has."""
    return len(load(file)["history"])


def accuracies(results: list[dict[str, Any]]) -> str:
    """Name, accuracy and interval of each file, in one line."""
    return ", ".join(
        f"{Path(entry['file']).stem} {accuracy_with_interval(entry)}" for entry in results
    )


def figures_table(report: dict[str, Any]) -> str:
    """Accuracy of each file."""
    rows = []
    for entry in report.get("results", [report]):
        rows.append(
            (
                Path(entry["file"]).stem,
                str(entry["n"]),
                accuracy_with_interval(entry),
                without_duplicates(entry),
                f"{entry['macro_f1']:.3f}",
            )
        )
    return table(("network", "n", "accuracy", "without duplicates", "macro F1"), rows)


def corruptions_table(report: dict[str, Any]) -> str:
    """Accuracy of each file on clean images and under the corruptions of the reference."""
    heads = ["file", "clean"]
    heads += [f"{name} {strength:g}" for name, strength in REFERENCE]
    rows = []
    for entry in report["results"]:
        found = entry["corruptions"]
        cells = [Path(entry["file"]).name, percent(entry["accuracy"])]
        for name, strength in REFERENCE:
            levels = {level["strength"]: level for level in found["by_name"][name]["levels"]}
            cells.append(f"{100 * levels[strength]['accuracy']:.1f} %")
        mean = found["reference"]
        cells.append(ratio(mean["relative_accuracy"], mean["relative_accuracy_ci95"], 3))
        rows.append(cells)
    return table([*heads, "mean, relative to clean"], rows)


def seeds_table(first: str, one: dict[str, Any], second: str, other: dict[str, Any]) -> str:
    """Two sweeps over the same seeds that differ in one thing."""
    rows = []
    for name, sweep in ((first, one), (second, other)):
        found = _by_seed(sweep)
        rows.append((name, ", ".join(percent(accuracy) for accuracy in found), spread(found)))
    seeds = ", ".join(str(seed) for seed in one["seeds"])
    return table(("", f"seeds {seeds}", "mean ± sd"), rows)


def points_between(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The difference of the means of two sweeps, in points."""
    difference = statistics.mean(_by_seed(one)) - statistics.mean(_by_seed(other))
    return f"{100 * difference:+.2f}"


def _by_seed(sweep: dict[str, Any]) -> list[float]:
    trials = sorted(sweep["rows"], key=lambda row: row["seed"])
    return [trial["accuracy"] for trial in trials]


def small_input_table(report: dict[str, Any]) -> str:
    """Early strides at 48 pixels, the defaults marked."""
    rows = []
    for row in report["rows"]:
        variant = ", ".join(f"{key}={value}" for key, value in row["variant"].items())
        if _is_default(row):
            variant += " (default)"
        rows.append(
            (
                row["arch"],
                variant,
                str(row["seed"]),
                accuracy_with_interval(row),
                milliseconds(row["latency_s"]),
            )
        )
    return table(("architecture", "arguments", "seed", "accuracy", "latency"), rows)


def _is_default(row: dict[str, Any]) -> bool:
    """Tell whether an architecture has these arguments by default at 48 pixels."""
    arguments = resolve_arch_args(row["arch"], {}, 48)
    given = {**resolve_arch_args(row["arch"], {}, 224), **row["variant"]}
    return all(arguments[key] == value for key, value in given.items())


def native_table(report: dict[str, Any]) -> str:
    """Candidates for a small network of native resolution."""
    rows = []
    for row in sorted(report["rows"], key=lambda row: -row["accuracy"]):
        times = report["latency_s"][row["plan"]]
        plan = row["plan"]
        if plan == NANO:
            plan += " (`nano_resnet`)"
        rows.append(
            (
                plan,
                f"{millions(row['params'], 3)} M",
                f"{millions(row['macs'], 1)} M",
                f"{percent(row['accuracy'])} {interval(row['accuracy_ci95'])}",
                percent(row["int8_accuracy"]),
                milliseconds(times["fp32"], 3),
                milliseconds(times["int8"], 3),
            )
        )
    heads = ("plan", "params", "MACs", "accuracy", "of INT8", "latency", "of INT8")
    return table(heads, rows)
