"""Results as rows of text, from the keys of each command's --json; terminal and page only draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fertool.report.units import (
    MISSING,
    accuracy_text,
    count_text,
    interval_text,
    p_value_text,
    percent_text,
    short_names,
    size_text,
    time_text,
    value_text,
)

Data = Mapping[str, Any]
Fact = tuple[str, str]

RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
_VIEWS = {"none": "single crop", "flip": "image and mirror image", "ten-crop": "ten crops"}
_WARNINGS = {
    "noisy": "{file}: the 90th percentile is {value:.1f} times the median; close other programs and measure again",
    "few-runs": "{value:.0f} runs give no reliable percentiles; use --runs 1000",
    "other-runtime": "{file}: not the baseline's runtime, so that the speed-up is not the model's alone",
    "slower": "{file}: slower than the baseline ({value:.2f} x)",
    "int8-slower": "{file}: INT8 is slower than the float baseline ({value:.2f} x); this processor may lack VNNI",
    "undecided": "{file}: no measurable difference in speed to the baseline; more --runs narrow the interval",
}


@dataclass(frozen=True)
class Grid:
    """Text cells; a header that starts with `>` belongs to a column of numbers, second lines are secondary."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def bench_grid(report: Data) -> Grid:
    """Lay out `bench --json`, two lines a file; accuracy and speed-up only where there is something to say.

    Below a dynamic network stand its profiles.
    """
    results = report["results"]
    names = short_names([entry["file"] for entry in results])
    speedups = [None, *report["comparisons"]]
    with_accuracy, several = (
        any(entry["accuracy"] is not None for entry in results),
        len(results) > 1,
    )
    headers = [
        "file\nruntime",
        ">size\nmemory",
        ">params\nMACs",
        ">latency\n90th pct.",
        ">images/s",
    ]
    headers += [">accuracy\n95 % CI"] * with_accuracy + [">speed-up\n95 % CI"] * several
    rows = []
    for entry, speedup in zip(results, speedups, strict=True):
        latency = entry["latency_s"]
        kind = RUNTIMES.get(entry["runtime"], entry["runtime"]) + (
            " INT8" if entry.get("quantized") else ""
        )
        cells = [
            f"{names[entry['file']]}\n{kind}",
            f"{size_text(entry['size_bytes'])}\n{size_text(entry['peak_rss_bytes'])}",
            f"{count_text(entry['params'])}\n{count_text(entry['macs'])}",
            f"{time_text(latency[_typical(report)])}\n{time_text(latency['p90'])}",
            count_text(entry["throughput_per_s"]),
        ]
        cells += [accuracy_cell(entry)] * with_accuracy
        rows.append((*cells, *[speedup_cell(speedup)] * several))
        for profile in entry.get("profiles", ()):
            name = f"  profile {profile['profile']}: {percent_text(profile['share'])} of the images"
            rows.append((name, "", "", time_text(profile["latency_s"]), *[""] * (len(headers) - 4)))
    return Grid(tuple(headers), tuple(rows))


def _typical(report: Data) -> str:
    """Return which latency the table shows: where the work depends on the image, not the median."""
    return "mean" if any(entry.get("profiles") for entry in report["results"]) else "median"


def bench_caption(report: Data) -> str:
    """Say how `bench` measured."""
    first = report["results"][0]
    plural = "" if first["threads"] == 1 else "s"
    parts = [
        f"{first['threads']} thread{plural}, batch {first['batch']}, {report['runs']:,} runs, {_typical(report)}s"
    ]
    if measured := next(
        (entry for entry in report["results"] if entry["accuracy"] is not None), None
    ):
        parts.append(f"accuracy: {measured['split']}, n = {measured['n']:,}")
    return "; ".join([*parts, report["environment"]["processor"]])


def bench_warnings(report: Data) -> list[str]:
    """Return the warnings of `bench --json` as sentences, each with what helps."""
    names = short_names([entry["file"] for entry in report["results"]])
    lines, others = [], []
    for entry in report["warnings"]:
        name = names[entry["file"]]
        if entry["kind"] == "other-runtime":
            others.append(name)
        else:
            lines.append(_WARNINGS[entry["kind"]].format(file=name, value=entry["value"]))
    return [*lines, _WARNINGS["other-runtime"].format(file=", ".join(others))] if others else lines


def eval_facts(entry: Data) -> list[Fact]:
    """Return the figures of one file of `eval --json` over all classes."""
    facts = [
        (
            f"accuracy, {_VIEWS[entry['tta']]}" if "tta" in entry else "accuracy",
            accuracy_text(entry),
        )
    ]
    if single := entry.get("single_crop"):
        facts.insert(
            0, (f"accuracy, {_VIEWS['none']}", accuracy_text({**single, "split": entry["split"]}))
        )
    if alone := entry.get("deduplicated"):
        facts.append(
            ("without copies of training images", accuracy_text({**alone, "split": entry["split"]}))
        )
    balanced, error = percent_text(entry["balanced_accuracy"]), entry["ece"]
    return [
        *facts,
        ("macro F1, balanced accuracy, ECE", f"{entry['macro_f1']:.3f}, {balanced}, {error:.3f}"),
    ]


def class_grid(entry: Data) -> Grid:
    """Lay out the classes of one file of `eval --json`."""
    rows = (
        (
            name,
            f"{one['n']:,}",
            percent_text(one["precision"]),
            percent_text(one["recall"]),
            f"{one['f1']:.3f}",
        )
        for name, one in entry["per_class"].items()
    )
    return Grid(("class", ">images", ">precision", ">recall", ">F1"), tuple(rows))


def confusion_grid(entry: Data) -> Grid:
    """Lay out a confusion matrix in percent: a row for each true class, a column for each answer."""
    names = tuple(entry["per_class"])
    rows = (
        (name, *(f"{100 * count / max(1, sum(counts)):.0f}" for count in counts))
        for name, counts in zip(names, entry["confusion"], strict=True)
    )
    return Grid(("", *(f">{name}" for name in names)), tuple(rows))


def comparison_grid(comparisons: Sequence[Data]) -> Grid:
    """Lay out the paired comparisons of `eval --json`: accuracy of each file less the baseline's."""
    names = short_names(
        [comparisons[0]["baseline"], *(entry["candidate"] for entry in comparisons)]
    )
    rows = (
        (
            names[entry["candidate"]],
            f"{100 * entry['difference']:+.2f}",
            interval_text(entry["difference_ci95"], decimals=2),
            p_value_text(entry["mcnemar_p"]),
            f"{entry['n']:,}",
        )
        for entry in comparisons
    )
    return Grid(("file", ">points", ">95 % interval", ">McNemar p", ">images"), tuple(rows))


def sweep_grid(sweep: Data) -> Grid:
    """Lay out every training of a sweep (OUT.grid.json, OUT.seeds.json)."""
    several = len(sweep["seeds"]) > 1
    rows = (
        (
            *(value_text(row["options"][name]) for name in sweep["axes"]),
            *[str(row["seed"])] * several,
            percent_text(row["accuracy"]),
            interval_text(row["accuracy_ci95"]),
            f"{row['loss']:.3f}",
            f"{row['best_epoch']} of {row['epochs']}",
            time_text(row["seconds"]),
        )
        for row in sweep["rows"]
    )
    axes = [f">{name}" for name in sweep["axes"]] + [">seed"] * several
    return Grid(
        (*axes, ">accuracy", ">95 % interval", ">loss", ">best epoch", ">time"), tuple(rows)
    )


def points_grid(sweep: Data) -> Grid:
    """Lay out the mean over the seeds of each combination of a sweep's options."""
    rows = (
        (
            *(value_text(point["options"][name]) for name in sweep["axes"]),
            mean_text(point),
            str(len(point["seeds"])),
            f"{point['loss_mean']:.3f}",
        )
        for point in sweep["points"]
    )
    return Grid(
        (*(f">{name}" for name in sweep["axes"]), ">mean ± sd", ">seeds", ">mean loss"), tuple(rows)
    )


def sweep_caption(sweep: Data) -> str:
    """Say what the figures of a sweep are, and which training the model file is of."""
    best, first = sweep["best"], sweep["rows"][0]
    options = [f"{name} {value_text(value)}" for name, value in best["options"].items()]
    chosen = ", ".join([*options, f"seed {best['seed']}"])
    return f"{first['split']}, n = {first['n']:,}; chosen there: {chosen}, whose own figure therefore flatters"


def mean_text(point: Data) -> str:
    """Return a mean over seeds with the standard deviation of one: "64.20 ± 0.35 %"."""
    mean, sd = 100 * point["accuracy_mean"], point["accuracy_sd"]
    return f"{mean:.2f} %" if sd is None else f"{mean:.2f} ± {100 * sd:.2f} %"


def data_grid(found: Data) -> Grid:
    """Lay out `data info --json`: images of each class in each split."""
    splits = list(found["counts"])
    rows = []
    for name in found["classes"]:
        counts = [found["counts"][split][name] for split in splits]
        rows.append((name, *(f"{count:,}" for count in (*counts, sum(counts)))))
    totals = [sum(found["counts"][split].values()) for split in splits]
    rows.append(("all", *(f"{count:,}" for count in (*totals, sum(totals)))))
    return Grid(("class", *(f">{split}" for split in splits), ">all"), tuple(rows))


_PASSED_OVER = {
    "converted to upright 8-bit sRGB": "converted",
    "files that are no images": "not_images",
    "images left out": "left_out",
}


def data_facts(found: Data) -> list[Fact]:
    """Return what in a data set can mislead."""
    facts = [
        ("source", f"{found['source']} (digest {found['digest'][:12]})"),
        (
            "images",
            f"{found['images']:,} of {found['image_size']} x {found['image_size']}, {_colour(found['channels'])}",
        ),
        (
            "distinct images",
            f"{found['distinct_images']:,}; {found['copy_groups']:,} occur more than once",
        ),
        *((f"copies, {where}", f"{count:,}") for where, count in found["copies_across"].items()),
        ("copies with different labels", f"{found['conflicting_groups']:,} groups"),
        ("images of one grey level", f"{found['constant_images']:,}"),
    ]
    for name, key in _PASSED_OVER.items():
        if found.get(key):
            facts.append(
                (name, ", ".join(f"{what} {count:,}" for what, count in found[key].items()))
            )
    if found["not_faces"] is not None:
        facts.append(("voted not a face (more than 5 of 10)", f"{found['not_faces']:,}"))
    for rule, kept in (found["ferplus_rule_counts"] or {}).items():
        facts.append(
            (
                f"kept by FER+ rule {rule}",
                ", ".join(f"{split} {count:,}" for split, count in kept.items()),
            )
        )
    return facts


def model_facts(summary: Data) -> list[Fact]:
    """Return what `show --json` says about a model, its history apart."""
    arguments = _pairs(summary["arch_args"])
    metrics = summary["metrics"]
    accuracy = (
        f"{accuracy_text(metrics)}, macro F1 {metrics['macro_f1']:.3f}"
        if metrics
        else "not measured"
    )
    return [
        ("architecture", summary["arch"] + (f" ({arguments})" if arguments else "")),
        ("size", size_text(summary["size_bytes"])),
        ("parameters", count_text(summary["params"])),
        (
            "MACs",
            f"{count_text(summary['macs'])} per image" + ", on average" * bool(summary["gates"]),
        ),
        *([("profiles", _profiles_text(summary["gates"]))] if summary["gates"] else []),
        ("input", _input_text(summary["input"])),
        ("classes", ", ".join(summary["classes"])),
        ("arithmetic", quant_text(summary["quant"])),
        ("accuracy", accuracy),
        ("digest", summary["digest"] or MISSING),
    ]


def _profiles_text(gates: Data) -> str:
    shares = ", ".join(percent_text(share) for share in gates["shares"])
    return f"{len(gates['profiles'])} widths, the widest first, for {shares} of the images"


def logits_facts(summary: Data) -> list[Fact]:
    """Return what `show --json` says about recorded logits, their history apart."""
    images, views = summary["images"], summary["views"]
    changes = {
        key: value
        for key, value in summary["augmentation"].items()
        if not isinstance(value, list | tuple)
    }
    seen = (
        f"{views}, seed {summary['seed']}: {_pairs(changes)}" if views else "the images as they are"
    )
    return [
        ("size", size_text(summary["size_bytes"])),
        ("logits of", ", ".join(f"teacher {digest[:12]}" for digest in summary["teachers"])),
        (
            "images",
            f"{images['count']:,} of {images['size']} x {images['size']} {_colour(images['channels'])}",
        ),
        ("images digest", images["digest"]),
        ("views", seen),
        ("classes", ", ".join(summary["classes"])),
        ("digest", summary["digest"] or MISSING),
    ]


def model_grid(summaries: Sequence[Data]) -> Grid:
    """Lay out several models (`show --json`) side by side."""
    names = short_names([summary["file"] for summary in summaries])
    rows = (
        (
            names[summary["file"]],
            summary["arch"],
            size_text(summary["size_bytes"]),
            count_text(summary["params"]),
            count_text(summary["macs"]),
            quant_text(summary["quant"]),
            accuracy_cell(summary["metrics"], with_split=True),
        )
        for summary in summaries
    )
    headers = (
        "file",
        "architecture",
        ">size",
        ">params",
        ">MACs",
        "arithmetic",
        ">accuracy\n95 % CI",
    )
    return Grid(headers, tuple(rows))


def history_grid(provenance: Sequence[Data]) -> Grid:
    """Lay out the steps that made a model: options, seed and the digests of what each read."""
    rows = (
        (str(number), step["command"], _step_text(step))
        for number, step in enumerate(provenance, start=1)
    )
    return Grid(("step", "command", "options and inputs"), tuple(rows))


def quant_text(quant: Data | None) -> str:
    """Say how a network computes: float32, or the bits of its weights and activations."""
    if quant is None:
        return "float32"
    weights = sorted({bits for layer in quant["weights"].values() for bits in layer["bits"]})
    activations = sorted(set(quant["activations"].values()))
    w, a = ("/".join(map(str, bits)) or "32" for bits in (weights, activations))
    return f"integers, weights {w} bit, activations {a} bit ({quant['method']})"


def accuracy_cell(figures: Data | None, with_split: bool = False) -> str:
    """Return an accuracy over its interval, and over split and number of images where no caption has them."""
    if not figures or figures["accuracy"] is None:
        return MISSING
    lines = [
        percent_text(figures["accuracy"]),
        interval_text(figures["accuracy_ci95"], between="-"),
    ]
    return "\n".join([*lines, f"{figures['split']}, n = {figures['n']:,}"] if with_split else lines)


def speedup_cell(comparison: Data | None) -> str:
    """Return how many times as fast, with the interval below; the baseline has no comparison."""
    if not comparison:
        return "1\nbaseline"
    return f"{comparison['speedup']:.2f} x\n{interval_text(comparison['speedup_ci95'], 1, 2, between='-')}"


def _input_text(shape: Data) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in shape[key]) for key in ("mean", "std"))
    pixels = f"{shape['size']} x {shape['size']} {_colour(shape['channels'])}"
    return f"{pixels}, (pixel / 255 - mean) / std with mean {mean}, std {std}"


def _colour(channels: int) -> str:
    return {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")


def _step_text(step: Data) -> str:
    seed = {} if step.get("seed") is None else {"seed": step["seed"]}
    inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in step["inputs"].items())
    return "; ".join(
        part
        for part in (_pairs({**step["options"], **seed}), f"read {inputs}" if inputs else "")
        if part
    )


def _pairs(options: Data) -> str:
    return " ".join(f"{key}={value}" for key, value in options.items() if value is not None)
