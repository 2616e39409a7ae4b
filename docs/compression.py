"""The tables of docs/results.md on pruning and on quantization."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tables import (
    accuracy_with_interval,
    change,
    interval,
    mean_of,
    millions,
    milliseconds,
    percent,
    ratio,
    spread,
    table,
)

Row = dict[str, Any]


def file_sizes(benchmark: dict[str, Any]) -> dict[str, int]:
    """Bytes of each file by its stage."""
    return {Path(row["file"]).stem: row["size_bytes"] for row in benchmark["results"]}


def accuracy_table(evaluation: dict[str, Any]) -> str:
    """The accuracy of each file."""
    rows = []
    for entry in evaluation["results"]:
        rows.append((Path(entry["file"]).stem, accuracy_with_interval(entry)))
    return table(("network", "accuracy"), rows)


def _speedup(entry: Row) -> str:
    return ratio(entry["speedup"], entry["speedup_ci95"])


# Pruning.


def criteria_table(model: dict[str, Any]) -> str:
    """Every criterion at the same budgets, before any training."""
    targets = sorted({row["target"] for row in model["rows"]}, reverse=True)
    found = {(row["criterion"], row["normalise"], row["target"]): row for row in model["rows"]}
    pairs = dict.fromkeys((row["criterion"], row["normalise"]) for row in model["rows"])
    rows = []
    for criterion, normalization in pairs:
        cells = [f"`{criterion}`", normalization]
        for target in targets:
            row = found[(criterion, normalization, target)]
            without = percent(row["plain_accuracy"])
            brackets = f"{without}; params {row['params_ratio']:.2f}"
            cells.append(f"{percent(row['accuracy'])} ({brackets})")
        rows.append(cells)
    heads = ["criterion", "normalization"]
    heads += [f"{target:g} of the MACs" for target in targets]
    return table(heads, rows)


def pruners_table(report: dict[str, Any]) -> str:
    """Accuracy at a budget of MACs, beside another library's, after the same fine-tuning."""
    runs: dict[str, list[Row]] = {}
    for row in report["rows"]:
        runs.setdefault(row["method"], []).append(row)
    rows = []
    for method, found in sorted(runs.items(), key=lambda item: -mean_of(item[1], "accuracy")):
        name = method if method.startswith("fertool") else f"Torch-Pruning, {method}"
        trained = [row["accuracy"] for row in found]
        rows.append(
            (
                name,
                str(len(found)),
                f"{found[0]['macs_ratio']:.3f}",
                f"{found[0]['params_ratio']:.3f}",
                percent(mean_of(found, "untrained_accuracy")),
                spread(trained),
                f"{100 * (statistics.mean(trained) - report['accuracy']):+.2f}",
            )
        )
    heads = (
        "pruned by",
        "seeds",
        "MACs",
        "params",
        "before training",
        "accuracy (± sd)",
        "points from unpruned",
    )
    return table(heads, rows)


def schedules_table(report: dict[str, Any]) -> str:
    """The published schedules and fertool's own, at the same parameters."""
    rows = []
    for row in sorted(report["rows"], key=lambda row: -row["accuracy"]):
        rows.append(
            (
                row["schedule"],
                f"{row['params_ratio']:.3f}",
                f"{row['macs_ratio']:.3f}",
                str(row["epochs"]),
                accuracy_with_interval(row),
                change(row["change"]),
            )
        )
    heads = (
        "schedule",
        "params",
        "MACs",
        "epochs on all images",
        "accuracy",
        "points from unpruned",
    )
    return table(heads, rows)


def half_table(report: dict[str, Any]) -> str:
    """What half of a trained network still knows."""
    rows = []
    for row in report["rows"]:
        rows.append(
            (
                row["rule"],
                _optional(row, "macs_ratio"),
                _optional(row, "params_ratio"),
                f"{percent(row['accuracy_before'])} → {percent(row['accuracy'])}",
                change(row),
                _speedup(row),
                f"{row['latency_s'] / row['latency_s_before']:.3f}",
            )
        )
    heads = ("budget", "MACs", "params", "accuracy", "points", "speed-up", "latency")
    return table(heads, rows)


def _optional(row: Row, key: str) -> str:
    return f"{row[key]:.3f}" if key in row else ""


def dynamic_table(report: dict[str, Any]) -> str:
    """The profiles of a dynamic network."""
    dynamic = report["bench"]["results"][1]
    latency = {profile["profile"]: profile["latency_s"] for profile in dynamic["profiles"]}
    rows = []
    for number, macs in enumerate(report["profile_macs"]):
        time = milliseconds(latency[number], 3) if number in latency else ""
        rows.append(
            (
                f"profile {number}",
                f"{macs / report['macs_before']:.3f}",
                percent(report["profile_accuracies"][number]),
                percent(report["shares"][number]),
                time,
            )
        )
    heads = (
        "",
        "MACs",
        "accuracy on all images",
        "fraction of images sent to it",
        "latency of these, median",
    )
    return table(heads, rows)


def cascade_table(report: dict[str, Any]) -> str:
    """A cascade of two files by the share of the images that goes on to the second."""
    first = report["macs"][0]
    rows = []
    for row in report["shares"]:
        rows.append(
            (
                f"{100 * row['share_sent']:.1f} %",
                f"{row['mean_macs'] / first:.2f}",
                accuracy_with_interval(row),
                f"{100 * row['random_accuracy']:.2f} %",
                f"{100 * row['difference']:+.2f} {interval(row['difference_ci95'], decimals=2)}",
                f"{row['paired_p']:.2g}",
                f"{100 * row['same_macs_accuracy']:.2f} %",
            )
        )
    heads = (
        "sent on",
        "mean MACs, of the first file's",
        "accuracy",
        "the same share at random",
        "points more",
        "p",
        "single files at random, same MACs",
    )
    return table(heads, rows)


def prune_speed_table(report: dict[str, Any]) -> str:
    """Half the MACs against the unpruned network, by what chose the channels."""
    rules: dict[str, None] = {}
    for row in report["rows"]:
        rules.update(dict.fromkeys(pruned["rule"] for pruned in row["pruned"]))
    rows = []
    for row in report["rows"]:
        found = {pruned["rule"]: pruned for pruned in row["pruned"]}
        weights = "trained" if row["trained"] else "random"
        cells = [row["arch"], f"{row['size']}", weights, milliseconds(row["latency_s"])]
        for rule in rules:
            pruned = found.get(rule)
            cells.append(f"{_speedup(pruned)}, MACs {pruned['macs_ratio']:.3f}" if pruned else "-")
        rows.append(cells)
    return table(("architecture", "pixels", "weights", "unpruned", *rules), rows)


def prune_time_table(report: dict[str, Any]) -> str:
    """What one-shot pruning itself takes."""
    rows = (
        ("graph, plan and surgery", f"{statistics.median(report['cut_s']):.2f} s"),
        (f"scores by `{report['criterion']}`", f"{statistics.median(report['scores_s']):.1f} s"),
        ("forward and backward passes alone", f"{statistics.median(report['passes_s']):.1f} s"),
        ("scores in units of these", f"{report['scores_in_passes']:.2f}"),
    )
    return table(("", "median"), rows)


# Quantization.


def int8_speed_table(report: dict[str, Any]) -> str:
    """INT8 against FP32, and against ONNX Runtime's own quantization of the same network."""
    rows = []
    for row in report["rows"]:
        static = max(row["quantize_static"], key=lambda entry: entry["speedup"])
        friendly = _speedup(row["friendly"]) if row.get("friendly") else ""
        rows.append(
            (
                row["arch"],
                f"{row['size']}",
                milliseconds(row["latency_s"]),
                _speedup(row),
                f"{_speedup(static)} ({static['settings']})",
                f"{row['speedup'] / static['speedup']:.2f}",
                friendly,
            )
        )
    heads = (
        "architecture",
        "pixels",
        "FP32",
        "INT8",
        "`quantize_static`",
        "INT8 against it",
        "`--replace-activations relu`",
    )
    return table(heads, rows)


def geometric_mean(rows: list[Row]) -> float:
    """The geometric mean of the speed-ups."""
    return statistics.geometric_mean(row["speedup"] for row in rows)


def processors(rows: list[Row]) -> str:
    """The processors of the rows, each once."""
    return ", ".join(dict.fromkeys(row["processor"] for row in rows))


def friendly_choice_table(report: dict[str, Any]) -> str:
    """Which activation, and whether it is learned in float first."""
    rows = []
    for row in report["rows"]:
        cells = [row["activation"]]
        for key in ("float_epochs", "rounding_epochs"):
            cells.append(", ".join(percent(value) for value in row[key]))
        rows.append(cells)
    return table(("activation", "accuracy by epoch in float", "then with fake quantization"), rows)


def small_files_table(report: dict[str, Any]) -> str:
    """Float against 2 to 8 bits, nothing trained."""
    rows = []
    for row in report["rows"]:
        rows.append(
            (
                row["file"],
                f"{row['arch']}, {millions(row['params'], 2)} M",
                f"{row['bits']:g}",
                f"{32 / row['bits']:.2f} x",
                f"{row['float_bytes']:,} → {row['size_bytes']:,}",
                f"{percent(row['accuracy_before'])} → {percent(row['accuracy'])}",
                change(row),
                percent(row["top1_agreement"]),
            )
        )
    heads = (
        "network",
        "",
        "bits",
        "weights smaller by",
        "bytes of .pt",
        "accuracy",
        "points",
        "same top class",
    )
    return table(heads, rows)


def bits_table(report: dict[str, Any]) -> str:
    """Allocations at the same mean of bits."""
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in report["rows"]:
        runs.setdefault((row["allocation"], row["rounding"]), []).append(row)
    rows = []
    for key, found in sorted(runs.items(), key=lambda item: mean_of(item[1], "kl")):
        accuracies = [row["accuracy"] for row in found]
        rows.append(
            (
                *key,
                f"{mean_of(found, 'average_bits'):.3f}",
                f"{mean_of(found, 'loss'):.4f}",
                f"{mean_of(found, 'kl'):.4f}",
                percent(mean_of(found, "top1_agreement")),
                spread(accuracies),
                f"{100 * (statistics.mean(accuracies) - report['accuracy']):+.2f}",
                f"{mean_of(found, 'search_s'):.2f} s",
            )
        )
    heads = (
        "allocation",
        "rounding",
        "bits",
        "predicted loss",
        "KL to the float network",
        "same top class",
        "accuracy (± sd)",
        "points",
        "search",
    )
    return table(heads, rows)


def activation_bits_table(report: dict[str, Any]) -> str:
    """Bits of activations, uniform and allocated."""
    runs: dict[tuple[float, bool], list[Row]] = {}
    for row in report["rows"]:
        runs.setdefault((row["bits"], row["shared"]), []).append(row)
    rows = []
    for (mean, allocated), found in runs.items():
        bits = found[0]["widths"]
        accuracies = [row["accuracy"] for row in found]
        rows.append(
            (
                f"{mean:g}",
                f"allocated, {bits[0]} to {bits[-1]}" if allocated else "uniform",
                f"{mean_of(found, 'kl'):.4f}",
                percent(mean_of(found, "top1_agreement")),
                spread(accuracies),
                f"{100 * (statistics.mean(accuracies) - report['accuracy']):+.2f}",
            )
        )
    heads = (
        "mean bits",
        "layers",
        "KL to the float network",
        "same top class",
        "accuracy (± sd)",
        "points",
    )
    return table(heads, rows)


def packing_table(report: dict[str, Any]) -> str:
    """Packed ONNX files beside plain INT8 ones."""
    rows = []
    for row in report["rows"]:
        packed_s, plain_s = (
            f"{1e3 * row[key]:.0f} ms" for key in ("packed_load_s", "plain_load_s")
        )
        rows.append(
            (
                row["file"],
                f"{row['weights']:,}",
                f"{row['average_bits']:.2f}",
                f"{row['packed_bytes']:,}",
                f"{row['packed_bytes'] / row['ideal_bytes']:.3f}",
                f"{row['packed_bytes'] / row['plain_bytes']:.3f}",
                "yes" if row["equal"] else "no",
                f"{row['convolutions'][1]} of {row['convolutions'][0]}",
                f"{packed_s}, {plain_s}",
                ratio(row["speedup"], row["speedup_ci95"], 3),
            )
        )
    heads = (
        "network",
        "weights",
        "bits stored",
        "bytes of .onnx",
        "of the ideal",
        "of plain INT8",
        "same logits",
        "QLinearConv",
        "loads in, plain",
        "speed against plain",
    )
    return table(heads, rows)
