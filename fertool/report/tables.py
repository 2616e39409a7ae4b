"""Results as tables: plain data in (the keys of each command's --json), Rich renderables out, 80 columns or more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fertool.report.units import (
    MISSING,
    accuracy_text,
    count_text,
    interval_text,
    percent_text,
    short_names,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    from fertool.hessian import Sensitivity

Data = Mapping[str, Any]
RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
_MOST_CONFUSION_COLUMNS = 8


def bench_table(report: Data) -> RenderableType:
    """Return the table of `bench --json`: two lines a file, and a heading for each line."""
    results = report["results"]
    names = short_names([entry["file"] for entry in results])
    speedups = {entry["candidate"]: entry for entry in report["comparisons"]}
    with_accuracy = any(entry["accuracy"] for entry in results)
    table = _table("file\nruntime", ">size\nmemory", ">params\nMACs", ">latency\n90th pct.", ">images/s")
    for header in ["accuracy"] * with_accuracy + ["speed-up"] * (len(results) > 1):
        table.add_column(f"{header}\n95 % CI", justify="right", no_wrap=True)
    for entry in results:
        latency = entry["latency_s"]
        kind = RUNTIMES.get(entry["runtime"], entry["runtime"]) + (" INT8" if entry.get("quantized") else "")
        cells = [
            (names[entry["file"]], kind),
            (size_text(entry["size_bytes"]), size_text(entry["peak_rss_bytes"])),
            (count_text(entry["params"]), count_text(entry["macs"])),
            (time_text(latency["median"]), time_text(latency["p90"])),
            (count_text(entry["throughput_per_s"]), ""),
        ]
        cells += [_accuracy_cell(entry["accuracy"])] * with_accuracy
        cells += [_speedup_cell(speedups.get(entry["file"]))] * (len(results) > 1)
        table.add_row(*(Text(first).append(f"\n{second}", "dim") for first, second in cells))
    return Group(table, Text(_bench_caption(report), "dim"))


def bench_warnings(report: Data) -> list[str]:
    """Return the warnings of `bench --json` as sentences, each with what helps."""
    texts = {
        "noisy": "{file}: the 90th percentile is {value:.1f} times the median; close other programs and measure again",
        "few-runs": "{value:.0f} runs give no reliable percentiles; use --runs 1000",
        "other-runtime": "{file}: not the baseline's runtime, so that the speed-up is not the model's alone",
        "slower": "{file}: slower than the baseline ({value:.2f} x)",
        "int8-slower": "{file}: INT8 is slower than the float baseline ({value:.2f} x); this processor may lack VNNI",
        "undecided": "{file}: no measurable difference in speed to the baseline; more --runs narrow the interval",
    }
    names = short_names([entry["file"] for entry in report["results"]])
    lines, others = [], []
    for entry in report["warnings"]:
        name = names[entry["file"]]
        if entry["kind"] == "other-runtime":
            others.append(name)
        else:
            lines.append(texts[entry["kind"]].format(file=name, value=entry["value"]))
    return [*lines, texts["other-runtime"].format(file=", ".join(others))] if others else lines


def eval_table(entry: Data) -> RenderableType:
    """Return one file's figures of `eval --json`: accuracy with its interval, each class, and who is taken for whom."""
    facts = [("accuracy", accuracy_text(entry))]
    if alone := entry.get("deduplicated"):
        facts.append(("without copies of training images", accuracy_text({**alone, "split": entry["split"]})))
    balanced, error = percent_text(entry["balanced_accuracy"]), entry["ece"]
    facts.append(("macro F1, balanced accuracy, ECE", f"{entry['macro_f1']:.3f}, {balanced}, {error:.3f}"))
    classes = _table("class", ">images", ">precision", ">recall", ">F1")
    for name, figures in entry["per_class"].items():
        shares = (percent_text(figures[key]) for key in ("precision", "recall"))
        classes.add_row(Text(name), f"{figures['n']:,}", *shares, f"{figures['f1']:.3f}")
    head = Text(str(entry.get("file", "")), "bold")
    parts: list[RenderableType] = [head, _facts(facts), classes]
    if len(entry["per_class"]) <= _MOST_CONFUSION_COLUMNS:
        parts += [Text("answers to each class, in percent of its images"), confusion_table(entry)]
    return Group(*parts)


def confusion_table(entry: Data) -> RenderableType:
    """Return the confusion matrix of `eval --json` in percent: a row for each true class, a column for each answer."""
    names = list(entry["per_class"])
    table = _table("", *(f">{name}" for name in names))
    for row, name in enumerate(names):
        counts = entry["confusion"][row]
        shares = (f"{100 * count / max(1, sum(counts)):.0f}" for count in counts)
        cells = (Text(share, "bold" if row == column else "") for column, share in enumerate(shares))
        table.add_row(Text(name), *cells)
    return table


def comparison_table(comparisons: Sequence[Data]) -> RenderableType:
    """Return the paired comparisons of `eval --json`: accuracy of each file less the baseline's."""
    names = short_names([comparisons[0]["baseline"], *(entry["candidate"] for entry in comparisons)])
    table = _table("file", ">points", ">95 % interval", ">McNemar p", ">images")
    for entry in comparisons:
        p = entry["mcnemar_p"]
        table.add_row(
            Text(names[entry["candidate"]]),
            f"{100 * entry['difference']:+.2f}",
            interval_text(entry["difference_ci95"], decimals=2),
            f"{p:.3f}" if p >= 0.001 else "< 0.001",
            f"{entry['n']:,}",
        )
    return Group(Text(f"accuracy less that of {names[comparisons[0]['baseline']]}, on the same images"), table)


def plan_table(rows: Iterable[tuple[str, int, int]], unit: str = "channels") -> RenderableType:
    """Return the widths (or bits) of a plan, name, before and after, with the share that stays."""
    table = _table("group", f">{unit} before", ">after", ">kept")
    for name, before, after in rows:
        style = "" if after < before else "dim"
        table.add_row(
            Text(name, style), f"{before:,}", f"{after:,}", f"{100 * after / max(1, before):.0f} %", style=style
        )
    return table


def change_table(before: Data, after: Data) -> RenderableType:
    """Return what a step does to a model: any of `size_bytes`, `params`, `macs` and `accuracy` in both maps."""
    shown = {"size_bytes": ("size", size_text), "params": ("params", count_text), "macs": ("MACs", count_text)}
    table = _table("", ">before", ">after", ">ratio")
    for key, (name, text) in shown.items():
        if before.get(key) and after.get(key) is not None:
            table.add_row(name, text(before[key]), text(after[key]), f"{after[key] / before[key]:.3f}")
    if before.get("accuracy") is not None and after.get("accuracy") is not None:
        points = f"{100 * (after['accuracy'] - before['accuracy']):+.1f} points"
        table.add_row("accuracy", percent_text(before["accuracy"]), percent_text(after["accuracy"]), points)
    return table


def sensitivity_table(sensitivity: Sensitivity) -> RenderableType:
    """Return for each layer its channels, and the mean, smallest and largest trace."""
    table = _table("layer", ">channels", ">weights", ">mean trace", ">smallest", ">largest")
    for layer in sensitivity.layers:
        traces = layer.weight_trace
        figures = (sum(traces) / len(traces), min(traces), max(traces))
        weights = count_text(layer.weight_params * len(traces))
        table.add_row(Text(layer.name), f"{len(traces):,}", weights, *(f"{value:.3g}" for value in figures))
    how = "exact" if sensitivity.method == "exact" else f"{sensitivity.probes} probes"
    caption = f"trace of the Hessian of the KL divergence per output channel; {sensitivity.samples} images, {how}"
    return Group(table, Text(caption, "dim"))


def data_table(found: Data) -> RenderableType:
    """Return what `data info --json` gives: images of each class in each split, then what can mislead."""
    splits = list(found["counts"])
    table = _table("class", *(f">{split}" for split in splits), ">all")
    for name in found["classes"]:
        counts = [found["counts"][split][name] for split in splits]
        table.add_row(Text(name), *(f"{count:,}" for count in (*counts, sum(counts))))
    totals = [sum(found["counts"][split].values()) for split in splits]
    table.add_row("all", *(f"{count:,}" for count in (*totals, sum(totals))), style="bold")
    facts = [
        ("source", f"{found['source']} (digest {found['digest'][:12]})"),
        (
            "images",
            f"{found['images']:,} of {found['image_size']} x {found['image_size']}, {_colour(found['channels'])}",
        ),
        ("distinct images", f"{found['distinct_images']:,}; {found['copy_groups']:,} occur more than once"),
        *((f"copies, {where}", f"{count:,}") for where, count in found["copies_across"].items()),
        ("copies with different labels", f"{found['conflicting_groups']:,} images"),
        ("images of one grey level", f"{found['constant_images']:,}"),
    ]
    if found["not_faces"] is not None:
        facts.append(("voted not a face (more than 5 of 10)", f"{found['not_faces']:,}"))
    for rule, kept in (found["ferplus_rule_counts"] or {}).items():
        facts.append((f"kept by FER+ rule {rule}", ", ".join(f"{split} {count:,}" for split, count in kept.items())))
    return Group(table, _facts(facts))


def show_table(summary: Data) -> RenderableType:
    """Return what `show --json` gives: the header of a model file and the steps that made it."""
    shape = summary["input"]
    arguments = _pairs(summary["arch_args"])
    facts = [
        ("file", f"{summary['file']} ({size_text(summary['size_bytes'])})"),
        ("architecture", summary["arch"] + (f" ({arguments})" if arguments else "")),
        ("parameters", count_text(summary["params"])),
        ("MACs", f"{count_text(summary['macs'])} per image"),
        ("input", input_text(shape)),
        ("classes", ", ".join(summary["classes"])),
        ("arithmetic", quant_text(summary["quant"])),
        ("accuracy", accuracy_text(summary["metrics"]) if summary["metrics"] else "not measured"),
        ("digest", summary["digest"] or MISSING),
    ]
    steps = _table("step", "command", "options and inputs")
    for number, step in enumerate(summary["provenance"], start=1):
        steps.add_row(str(number), Text(step["command"]), Text(step_text(step)))
    return Group(_facts(facts), steps) if summary["provenance"] else _facts(facts)


def input_text(shape: Data) -> str:
    """Return an input specification: size, channels and the normalisation of the pixels."""
    mean, std = (", ".join(f"{value:.4g}" for value in shape[key]) for key in ("mean", "std"))
    pixels = f"{shape['size']} x {shape['size']} {_colour(shape['channels'])}"
    return f"{pixels}, (pixel / 255 - mean) / std with mean {mean}, std {std}"


def quant_text(quant: Data | None) -> str:
    """Return how a network computes: float32, or the bits of its weights and activations."""
    if quant is None:
        return "float32"
    weights = sorted({bits for layer in quant["weights"].values() for bits in layer["bits"]})
    activations = sorted(set(quant["activations"].values()))
    w, a = ("/".join(map(str, bits)) or "32" for bits in (weights, activations))
    return f"integers, weights {w} bit, activations {a} bit ({quant['method']})"


def step_text(step: Data) -> str:
    """Return the options of one step in the provenance, its seed and the digests of what it read."""
    pairs = _pairs(step["options"])
    seed = "" if step.get("seed") is None else f"seed={step['seed']}"
    inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in step["inputs"].items())
    return "; ".join(
        part for part in (" ".join(filter(None, (pairs, seed))), f"read {inputs}" if inputs else "") if part
    )


def _colour(channels: int) -> str:
    return {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")


def _pairs(options: Data) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items() if value is not None)


def _accuracy_cell(accuracy: Data | None) -> tuple[str, str]:
    if not accuracy:
        return MISSING, ""
    return percent_text(accuracy["accuracy"]), interval_text(accuracy["accuracy_ci95"], between="-")


def _speedup_cell(comparison: Data | None) -> tuple[str, str]:
    if not comparison:
        return "1", "baseline"
    return f"{comparison['speedup']:.2f} x", interval_text(comparison["speedup_ci95"], 1, 2, between="-")


def _bench_caption(report: Data) -> str:
    first = report["results"][0]
    plural = "" if first["threads"] == 1 else "s"
    parts = [f"{first['threads']} thread{plural}, batch {first['batch']}, {report['runs']:,} runs, medians"]
    if accuracy := next((entry["accuracy"] for entry in report["results"] if entry["accuracy"]), None):
        parts.append(f"accuracy: {accuracy['split']}, n = {accuracy['n']:,}")
    parts.append(report["environment"]["processor"])
    return "; ".join(parts)


def _table(*headers: str) -> Table:
    """An empty table; a header that starts with `>` belongs to a column of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.removeprefix(">"), justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _facts(pairs: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(name, "dim"), Text(value))
    return grid
