"""The sections of docs/results.md on pruning and on integers, each from one JSON file."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tables import arguments, interval, load, mean_of, pairs, percent, table, wilson_interval

from fertool.report.units import p_value_text


def int8(evaluation: dict[str, Any]) -> str:
    """The INT8 file beside the float file of the same network."""
    sizes = {Path(r["file"]).stem: r["size_bytes"] for r in load("two_cores_bench.json")["results"]}
    ratio = sizes["int8"] / sizes["pruned"]
    size = f"{sizes['int8']:,} bytes against {sizes['pruned']:,}, a ratio of {ratio:.3f}"
    return f"{pairs(evaluation['comparisons'])}\n\nOn disk: {size}."


def int8_speed(report: dict[str, Any]) -> str:
    """INT8 against FP32, and against ONNX Runtime's own quantisation of the same network."""
    rows, ratios = [], []
    for row in report["rows"]:
        rival, friendly = (
            max(row["quantize_static"], key=lambda entry: entry["speedup"]),
            row.get("friendly"),
        )
        ratios.append(row["speedup"])
        rows.append(
            (
                row["arch"],
                f"{row['size']}",
                f"{1e3 * row['latency_s']:.2f} ms",
                f"{row['speedup']:.2f} {interval(row['speedup_ci95'], 1, 2)}",
                f"{rival['speedup']:.2f} {interval(rival['speedup_ci95'], 1, 2)} ({rival['settings']})",
                f"{row['speedup'] / rival['speedup']:.2f}",
                f"{friendly['speedup']:.2f} {interval(friendly['speedup_ci95'], 1, 2)}"
                if friendly
                else "",
            )
        )
    processors = ", ".join(dict.fromkeys(row["processor"] for row in report["rows"]))
    heads = (
        "architecture",
        "pixels",
        "FP32",
        "INT8",
        "`quantize_static`",
        "INT8 against it",
        "`--replace-activations relu`",
    )
    return (
        f"{table(heads, rows)}\n\nTimes as fast as FP32; geometric mean {statistics.geometric_mean(ratios):.2f}. "
        "Random weights, ranges of drawn faces, one thread; of `quantize_static` the fastest of its four settings; "
        "`--replace-activations relu` with ReLU against the same FP32 network, which has HardSwish or SiLU. "
        f"Processor: {processors}."
    )


def prune_speed(report: dict[str, Any]) -> str:
    """Half the MACs against the unpruned network, by what chose the widths."""
    rules = list(dict.fromkeys(p["rule"] for row in report["rows"] for p in row["pruned"]))
    rows = []
    for row in report["rows"]:
        found = {p["rule"]: p for p in row["pruned"]}
        cells = [
            f"{p['speedup']:.2f} {interval(p['speedup_ci95'], 1, 2)}, MACs {p['macs_ratio']:.3f}"
            if p
            else "-"
            for p in map(found.get, rules)
        ]
        weights = "trained" if row["trained"] else "random"
        rows.append(
            (row["arch"], f"{row['size']}", weights, f"{1e3 * row['latency_s']:.2f} ms", *cells)
        )
    asked = f"`--target-flops {report['target']}`, and where it says so `--target-latency` with it"
    note = (
        "Random weights are pruned by `l1`, trained ones by `kl`, as is the default with images. MobileNetV2 and "
        "V3-Large are those of the comparisons at full width below, the other trained networks have had four to eight "
        "epochs, all another one to three for 96 pixels"
    )
    return f"{table(('architecture', 'pixels', 'weights', 'unpruned', *rules), rows)}\n\n{note}. One thread; {asked}."


def pruners(report: dict[str, Any]) -> str:
    """Accuracy at a budget of MACs, beside another library's, after the same fine-tuning."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in report["rows"]:
        runs.setdefault(row["method"], []).append(row)
    rows = []
    for method, found in sorted(runs.items(), key=lambda item: -mean_of(item[1], "accuracy")):
        trained = [row["accuracy"] for row in found]
        spread = f" ± {100 * statistics.stdev(trained):.2f}" if len(trained) > 1 else ""
        rows.append(
            (
                method if method.startswith("fertool") else f"Torch-Pruning, {method}",
                str(len(found)),
                *(f"{found[0][key]:.3f}" for key in ("macs_ratio", "params_ratio")),
                percent(mean_of(found, "untrained_accuracy")),
                f"{100 * statistics.mean(trained):.2f}{spread} %",
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
    narrow = report["model"]["arch_args"]["width_mult"] < 1
    taught = "at half width and briefly trained: smaller than a full comparison"
    if not narrow:
        taught = "taught for 40 epochs on an H200 as `benchmarks/pruners.sh` does"
    return "\n\n".join(
        (
            table(heads, rows),
            f"Unpruned: {percent(report['accuracy'])} {interval(wilson_interval(report['accuracy'], report['n']))}, "
            f"{report['params'] / 1e6:.2f} M parameters, {report['macs'] / 1e6:.1f} M MACs "
            f"({arguments(report['model'])}), {taught}. Then "
            f"{report['epochs']} epochs each at a learning rate of {report['lr']:g}, distilled from the unpruned "
            "network, accuracy of the last one; single crop. Torch-Pruning 1.6.1 with widths in multiples of 16, as "
            "fertool's; of each importance the better ranking, on these very images, is the one with several seeds.",
        )
    )


def prune_time(report: dict[str, Any]) -> str:
    """What one-shot pruning itself takes."""
    rows = (
        ("graph, plan and surgery", f"{statistics.median(report['cut_s']):.2f} s"),
        (f"scores by `{report['criterion']}`", f"{statistics.median(report['scores_s']):.1f} s"),
        ("forward and backward passes alone", f"{statistics.median(report['passes_s']):.1f} s"),
        ("scores in units of these", f"{report['scores_in_passes']:.2f}"),
    )
    what = f"{report['arch']} at 48 x 48, {report['images']:,} images, {report['threads']} threads, {report['rounds']} "
    return f"{table(('', 'median'), rows)}\n\n{what}rounds in turns ({report['cpu']})."


def criteria(report: dict[str, Any]) -> str:
    """Every criterion at the same budgets, before any training."""
    parts = []
    for model in report["models"]:
        targets = sorted({row["target"] for row in model["rows"]}, reverse=True)
        ways = dict.fromkeys((row["criterion"], row["normalise"]) for row in model["rows"])
        found = {(row["criterion"], row["normalise"], row["target"]): row for row in model["rows"]}
        rows = []
        for way in ways:
            cells = [
                f"{percent(row['accuracy'])} (not repaired {percent(row['plain_accuracy'])}; params "
                f"{row['params_ratio']:.2f})"
                for row in (found[(*way, target)] for target in targets)
            ]
            rows.append(
                (f"`{way[0]}`", {"none": "as they are", "layer": "by layer"}[way[1]], *cells)
            )
        heads = ("criterion", "scores compare", *(f"{target:g} of the MACs" for target in targets))
        parts.append(
            f"`{model['arch']}`, unpruned {percent(model['accuracy'])}:\n\n{table(heads, rows)}"
        )
    return "\n\n".join([*parts, f"{report['samples']:,} training images score the channels."])


def dynamic(report: dict[str, Any]) -> str:
    """A dynamic network beside the one that it was pruned from."""
    base, ours = report["bench"]["results"]
    latency = {profile["profile"]: profile["latency_s"] for profile in ours["profiles"]}
    rows = [
        (
            f"profile {number}",
            f"{macs / report['macs_before']:.3f}",
            percent(report["profile_accuracies"][number]),
            percent(report["shares"][number]),
            f"{1e3 * latency[number]:.3f} ms" if number in latency else "",
        )
        for number, macs in enumerate(report["profile_macs"])
    ]
    (pair,) = report["bench"]["comparisons"]
    low, high = report["difference_ci95"]
    heads = ("", "MACs", "accuracy on all images", "images that it got", "latency of these, median")
    return "\n\n".join(
        (
            table(heads, rows),
            f"Together: accuracy {percent(report['accuracy'])} {interval(report['accuracy_ci95'])} where the network "
            f"had {percent(report['accuracy_before'])}, {100 * report['difference']:+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}]. The same shares sent through the profiles at random: "
            f"{percent(report['random_accuracy'])} (sd {100 * report['random_sd']:.2f} points).",
            f"MACs on average {report['macs'] / report['macs_before']:.3f} of {report['macs_before'] / 1e6:.1f} M, the "
            f"gate's included; parameters {report['params'] / 1e6:.2f} M where it had "
            f"{report['params_before'] / 1e6:.2f} M, of these {report['gate_params']:,} in the gate.",
            f"Mean latency in ONNX Runtime, one thread, the same images in turns: "
            f"{1e3 * base['latency_s']['mean']:.3f} ms and {1e3 * ours['latency_s']['mean']:.3f} ms, "
            f"{pair['speedup']:.2f} {interval(pair['speedup_ci95'], 1, 2)} times as fast "
            f"({report['bench']['environment']['processor']}). {arguments(report['model'])}; "
            f"{report['options']['epochs']} epochs, seed 0.",
        )
    )


def schedules(report: dict[str, Any]) -> str:
    """The published schedules and ours, at the same parameters (the thesis's table 3-3 in our numbers)."""
    rows = []
    for row in sorted(report["rows"], key=lambda row: -row["accuracy"]):
        change = row["change"]
        rows.append(
            (
                row["schedule"],
                f"{row['params_ratio']:.3f}",
                f"{row['macs_ratio']:.3f}",
                str(row["epochs"]),
                f"{percent(row['accuracy'])} {interval(row['accuracy_ci95'])}",
                points(change),
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
    return "\n\n".join(
        (
            table(heads, rows),
            f"{arguments(report['model'])}, on {report['data']}; seed 0. `prj` also punishes, on its scoring images, "
            "10 epochs in each of its cycles. *Repaired*: with `--local-retrain`, as is the default of "
            "one-shot and iterative. "
            "In the source's table 3-3 (MobileNetV2, AffectNet with 7 classes, 0.8 of the parameters) PRJ loses 1.6 "
            "points of 65.5 %, GREG 2.0 and Network Slimming 4.3.",
        )
    )


def half(report: dict[str, Any]) -> str:
    """What half of a trained network still knows."""
    rows = [
        (
            row["rule"],
            f"{row['macs_ratio']:.3f}" if "macs_ratio" in row else "",
            f"{row['params_ratio']:.3f}" if "params_ratio" in row else "",
            f"{percent(row['accuracy_before'])} → {percent(row['accuracy'])}",
            points(row),
            f"{row['speedup']:.2f} {interval(row['speedup_ci95'], 1, 2)}",
            f"{row['latency_s'] / row['latency_s_before']:.3f}",
        )
        for row in report["rows"]
    ]
    heads = ("asked", "MACs", "params", "accuracy", "points", "speed-up", "latency")
    return "\n\n".join(
        (
            table(heads, rows),
            f"{arguments(report['model'])}, seed 0, networks of the comparisons above; {report['epochs']} epochs of "
            "distillation from the unpruned network. "
            "Latency in ONNX Runtime, one thread, both in turns.",
        )
    )


def small_files(report: dict[str, Any]) -> str:
    """Float against 2 to 8 bits, nothing trained."""
    rows = [
        (
            row["file"],
            f"{row['arch']}, {row['params'] / 1e6:.2f} M",
            f"{row['bits']:g}",
            f"{32 / row['bits']:.2f} x",
            f"{row['float_bytes']:,} → {row['size_bytes']:,}",
            f"{percent(row['accuracy_before'])} → {percent(row['accuracy'])}",
            points(row),
            percent(row["top1_agreement"]),
        )
        for row in report["rows"]
    ]
    heads = (
        "network",
        "",
        "bits",
        "weights smaller by",
        "bytes of .pt",
        "accuracy",
        "points",
        "same answer",
    )
    return "\n\n".join(
        (
            table(heads, rows),
            "Nothing is trained: 64 training images for the traces, 512 for the integers. In the source (thesis, "
            "tables 4-1 and 4-2), after training with rounding, MobileNetV2 loses 2.38 points at 9.93 x on "
            "AffectNet, and ResNet-50 1.57 at 14.48 x on ImageNet.",
        )
    )


def pruned_mixed(evaluation: dict[str, Any]) -> str:
    """Pruned and quantised against quantised alone."""
    rows = [
        (Path(r["file"]).stem, f"{percent(r['accuracy'])} {interval(r['accuracy_ci95'])}")
        for r in evaluation["results"]
    ]
    return "\n\n".join(
        (
            table(("network", "accuracy"), rows),
            pairs(evaluation["comparisons"]),
            "MobileNetV2 at half width: as it is at 2.23 bits a weight (`--target-size 290k`: 290,017 bytes), and "
            "pruned to half its MACs, as above, at 8 bits (`--weight-range full`: 230,263 bytes). In the source's "
            "table 4-3, at 1.36 MB both: 63.13 and 63.35 %.",
        )
    )


def bits(report: dict[str, Any]) -> str:
    """Allocations at the same mean of bits."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in report["rows"]:
        runs.setdefault((row["allocation"], row["rounding"]), []).append(row)
    rows = []
    for (allocation, rounding), found in sorted(
        runs.items(), key=lambda item: mean_of(item[1], "kl")
    ):
        accuracies = [100 * row["accuracy"] for row in found]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(found) > 1 else ""
        rows.append(
            (
                allocation,
                rounding,
                f"{mean_of(found, 'average_bits'):.3f}",
                f"{mean_of(found, 'loss'):.4f}",
                f"{mean_of(found, 'kl'):.4f}",
                percent(mean_of(found, "top1_agreement")),
                f"{statistics.mean(accuracies):.2f}{spread} %",
                f"{statistics.mean(accuracies) - 100 * report['accuracy']:+.2f}",
                f"{mean_of(found, 'search_s'):.2f} s",
            )
        )
    seeds, bound = len({row["seed"] for row in report["rows"]}), mean_of(report["rows"], "bound")
    heads = (
        *(
            "allocation",
            "rounding",
            "bits",
            "predicted loss",
            "KL to the float network",
            "same answer",
        ),
        *("accuracy (± sd)", "points", "search"),
    )
    return "\n\n".join(
        (
            table(heads, rows),
            f"{arguments(report['model'])}, float {percent(report['accuracy'])}; {seeds} seeds, which draw the images "
            f"of traces and calibration; nothing is trained. No allocation gets below a predicted loss of {bound:.4f}. "
            "The actor-critic tries 650 networks.",
        )
    )


def activation_bits(report: dict[str, Any]) -> str:
    """Bits of activations, alike and shared out."""
    runs: dict[tuple[float, bool], list[dict[str, Any]]] = {}
    for row in report["rows"]:
        runs.setdefault((row["bits"], row["shared"]), []).append(row)
    rows = []
    for (mean, shared), found in runs.items():
        accuracies = [100 * row["accuracy"] for row in found]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(found) > 1 else ""
        rows.append(
            (
                f"{mean:g}",
                f"shared out, {found[0]['widths'][0]} to {found[0]['widths'][-1]}"
                if shared
                else "alike",
                f"{mean_of(found, 'kl'):.4f}",
                percent(mean_of(found, "top1_agreement")),
                f"{statistics.mean(accuracies):.2f}{spread} %",
                f"{statistics.mean(accuracies) - 100 * report['accuracy']:+.2f}",
            )
        )
    heads = (
        "mean bits",
        "layers",
        "KL to the float network",
        "same answer",
        "accuracy (± sd)",
        "points",
    )
    seeds = len({row["seed"] for row in report["rows"]})
    return (
        f"{table(heads, rows)}\n\n{arguments(report['model'])}, float {percent(report['accuracy'])}; {seeds} seeds, "
        "which draw the images of the calibration; portable weights; nothing is trained."
    )


def packing(report: dict[str, Any]) -> str:
    """Packed ONNX files beside plain INT8 ones."""
    rows = [
        (
            row["file"],
            f"{row['weights']:,}",
            f"{row['average_bits']:.2f}",
            f"{row['packed_bytes']:,}",
            f"{row['packed_bytes'] / row['ideal_bytes']:.3f}",
            f"{row['packed_bytes'] / row['plain_bytes']:.3f}",
            "yes" if row["equal"] else "no",
            f"{row['convolutions'][1]} of {row['convolutions'][0]}",
            f"{1e3 * row['packed_load_s']:.0f} ms, {1e3 * row['plain_load_s']:.0f} ms",
            f"{row['speedup']:.3f} {interval(row['speedup_ci95'], 1, 3)}",
        )
        for row in report["rows"]
    ]
    heads = (
        *(
            "network",
            "weights",
            "bits stored",
            "bytes of .onnx",
            "of the ideal",
            "of plain INT8",
            "same logits",
        ),
        *("QLinearConv", "loads in, plain", "speed against plain"),
    )
    return table(heads, rows) + (
        "\n\nThe ideal: bits / 8 and two bytes a channel for its scale; nothing for biases, the graph and the header. "
        "nano_resnet is the trained one; the others have half their width and were trained for an epoch on drawn "
        "faces, which decides how bits are shared out but not what a bit takes. ONNX Runtime 1.31, Intel Xeon with "
        "VNNI and AMX."
    )


def points(change: dict[str, Any]) -> str:
    """Return the difference of a paired comparison, its interval and McNemar's p."""
    low, high = (100 * bound for bound in change["difference_ci95"])
    return f"{100 * change['difference']:+.2f} [{low:+.2f}, {high:+.2f}], p {p_value_text(change['mcnemar_p'])}"
