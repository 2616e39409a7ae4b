"""Print docs/results.md from the JSON files in docs/results/, and draw docs/result-table.svg; see `make results`.

Nothing in the page is written by hand: each table says which command made its file.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compression import (
    activation_bits,
    bits,
    criteria,
    dynamic,
    half,
    int8,
    int8_speed,
    packing,
    prune_speed,
    prune_time,
    pruned_mixed,
    pruners,
    schedules,
    small_files,
)
from tables import FOLDER, interval, load, pairs, percent, table

from fertool.models.registry import resolve_arch_args

TABLE = Path(__file__).parent / "result-table.svg"
THIRD = " on every third training image"
VIEWS = "--rotation 12 --translate 0.08 --scale 0.15 --erasing 0.25 --seeds 0,1,2"
"""What the teacher's file was recorded under, eight times."""
MICRO = (
    "--data third.csv --arch micro_expnet --epochs 12 --batch-size 128 --lr 0.003 --weight-decay 0.01 --ema-decay 0.99 "
    f"--patience 0 {VIEWS}"
)
SHORT = (
    "--data third.csv --arch nano_resnet --temperature 4 --alpha 0.9 --epochs 10 --batch-size 128 --lr 0.1 "
    f"--optimizer sgd --weight-decay 2e-4 --lr-schedule onecycle --ema-decay 0.99 --patience 0 --precision bf16 {VIEWS}"
)
NANO = "c32s2-1basic-c64s2-2basic-c96s2-2basic"
"""The plan of the zoo's `nano_resnet`, in the words of benchmarks/native.py."""

HEAD = """# Results

Made by `make results` from the JSON files in `docs/results/`; do not edit. Accuracies are on FER2013's **PublicTest**
(3,589 images), the validation split on which epochs were chosen, single crop, so they flatter a little; PrivateTest
has not been looked at. Intervals are 95 %. Speeds are ONNX Runtime's on two cores of shared AMD EPYC processors (where
nothing else is said: AVX2, no VNNI) and hold as ratios within one run."""


def main() -> None:
    """Write the page to stdout and, without --check, the table's picture beside it."""
    print(HEAD)
    for title, name, command, section in SECTIONS:
        path = FOLDER / name
        if path.exists():
            print(f"\n## {title}\n\n`{command}`\n")
            print(section(json.loads(path.read_text())))
    if "--check" not in sys.argv:
        draw_table()


def stages(evaluation: dict[str, Any], benchmark: dict[str, Any], *more: tuple[str, ...]) -> str:
    """Accuracy, cost and speed of every stage, then what pairs of them differ by; `more` are further rows."""
    measured = {Path(r["file"]).stem: r for r in benchmark["results"]}
    speedups = {Path(c["candidate"]).stem: c for c in benchmark["comparisons"]}
    rows = []
    for entry in evaluation["results"]:
        stage = Path(entry["file"]).stem
        bench, alone, speed = measured[stage], entry["deduplicated"], speedups.get(stage)
        rows.append(
            (
                stage,
                f"{bench['params'] / 1e6:.3f} M",
                f"{bench['macs'] / 1e6:.1f} M",
                f"{bench['size_bytes']:,}",
                f"{percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}",
                f"{percent(alone['accuracy'])} (n = {alone['n']:,})",
                f"{entry['macro_f1']:.3f}",
                f"{1e3 * bench['latency_s']['median']:.2f} ms",
                f"{speed['speedup']:.2f} {interval(speed['speedup_ci95'], 1, 2)}" if speed else "1",
            )
        )
    heads = (
        "stage",
        "params",
        "MACs",
        "bytes",
        "accuracy",
        "without copies",
        "macro F1",
        "latency",
        "speed-up",
    )
    return f"{table(heads, [*rows, *more])}\n\n{pairs(evaluation['comparisons'])}"


def chain(evaluation: dict[str, Any]) -> str:
    """Recipe 1's chain."""
    source = (
        "*source, test split*",
        "1.18 M",
        "90 M",
        "",
        "*71.2 %*",
        "",
        "",
        "*35.7 ms, Raspberry Pi 4*",
        "",
    )
    return (
        "Seed 0; the logs of the trainings are beside the JSON. Last row: the source's own figures (Rejina 2026), on "
        f"another split, machine, teacher and budget.\n\n{stages(evaluation, load('two_cores_bench.json'), source)}"
    )


def best(evaluation: dict[str, Any]) -> str:
    """Our own best networks."""
    flips = [
        f"{Path(entry['file']).stem} {percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}"
        for entry in load("best_flip.json")["results"]
    ]
    benchmark = load("best_bench.json")
    return "\n\n".join(
        (
            stages(evaluation, benchmark),
            f"With the mirror image: {', '.join(flips)}. Seed 0, trained on FER2013's training images alone; the logs "
            "are beside the JSON. The steps were run one by one, with the recipe's options. "
            f"Processor: {benchmark['environment']['processor']}.",
            "`teacher`, `nano` (`nano_resnet`) and its INT8 form are the recipe's. `second` is the teacher taught for "
            "8 epochs more by the teacher's own logits file, from its weights: `fertool distill teacher.logits --init "
            "teacher.pt --arch resnet18 --arch-arg width_mult=0.5 --arch-arg stem_pool=false --arch-arg dropout=0.2 "
            "--temperature 2 --alpha 0.5 --epochs 8 --batch-size 128 --lr 0.03 --optimizer sgd --weight-decay 5e-4 "
            "--lr-schedule onecycle --ema-decay 0.998`. `micro` is recipe 1's `micro_expnet`, taught from the same "
            "file: `--arch micro_expnet --temperature 4 --alpha 0.9 --epochs 36 --batch-size 128 --lr 0.003 "
            "--weight-decay 0.01 --ema-decay 0.998 --start-size 32`. `micro_fine` has the same parameters on maps of "
            "twice the side, from the weights of `micro`: `--arch-arg stem_stride=1 --arch-arg early_stride=1 "
            "--init micro.pt --epochs 40 --lr 0.05 --optimizer sgd --weight-decay 2e-4 --lr-schedule onecycle`, "
            "else the same.",
        )
    )


def friendly(evaluation: dict[str, Any]) -> str:
    """Integers after and in training, and with ReLU in place of HardSwish."""
    benchmark = load("friendly_bench.json")
    return "\n\n".join(
        (
            stages(evaluation, benchmark),
            "`float` is MobileNetV3-Large at half width, `ptq` is `fertool quantize float.pt --data fer2013.csv`, "
            "`qat` the same with `--method qat --epochs 3 --batch-size 128`, `friendly` that with "
            "`--replace-activations relu`, which adds 3 epochs as floats. Seed 0; the logs are beside the JSON. "
            f"Processor: {benchmark['environment']['processor']}.",
            friendly_choice(load("friendly_choice.json")),
        )
    )


def friendly_choice(report: dict[str, Any]) -> str:
    """Which activation, and whether floats learn it first."""
    rows = [
        (
            row["activation"],
            *(
                ", ".join(percent(value) for value in row[f"{kind}_epochs"])
                for kind in ("float", "rounding")
            ),
        )
        for row in report["rows"]
    ]
    heads = ("activation", "accuracy by epoch, as floats", "with rounding")
    return f"{table(heads, rows)}\n\nOn {report['data']}; n = {report['n']:,}."


def ferplus(report: dict[str, Any]) -> str:
    """Accuracy under FER+'s eight classes."""
    rows = [
        (
            Path(entry["file"]).stem,
            str(entry["n"]),
            f"{percent(entry['accuracy'])} {interval(entry['accuracy_ci95'])}",
            f"{percent(entry['deduplicated']['accuracy'])} (n = {entry['deduplicated']['n']:,})",
            f"{entry['macro_f1']:.3f}",
        )
        for entry in report.get("results", [report])
    ]
    note = (
        "`nano_resnet`, 0.574 M parameters, from the weights that it has of FER2013's labels, 16 epochs with the "
        "distributions of FER+'s votes as targets (`--ferplus-rule soft`). Theirs, on FER+'s test split: about 84 % "
        "with majority labels and 85 % with distributions, a VGG13 of 8.76 M parameters (Barsoum et al. 2016)."
    )
    return f"{table(('network', 'n', 'accuracy', 'without copies', 'macro F1'), rows)}\n\n{note}"


def seeds(first: str, second: str, beside: str, data: str = "") -> Callable[[dict[str, Any]], str]:
    """Two trainings over the same seeds that differ in one thing; the second is in the file `beside`."""

    def section(report: dict[str, Any]) -> str:
        other = load(beside)
        rows, means = [], []
        for name, sweep in ((first, report), (second, other)):
            trials = sorted(sweep["rows"], key=lambda row: row["seed"])
            accuracies = [row["accuracy"] for row in trials]
            means.append(statistics.mean(accuracies))
            spread = f"{100 * means[-1]:.2f} ± {100 * statistics.stdev(accuracies):.2f} %"
            rows.append((name, ", ".join(percent(accuracy) for accuracy in accuracies), spread))
        heads = ("", f"seeds {', '.join(str(seed) for seed in report['seeds'])}", "mean ± sd")
        budget = f"{report['rows'][0]['epochs']} epochs each{data}, far fewer than a full training"
        return f"{table(heads, rows)}\n\nDifference of the means: {100 * (means[0] - means[1]):+.2f} points; {budget}."

    return section


def hessian(report: dict[str, Any]) -> str:
    """Cost and agreement of the traces, beside one iteration of PyHessian."""
    rows = []
    for row in report["methods"]:
        kinds = [row[kind] for kind in ("weight", "activation") if kind in row]
        units = (row["forward_backward_passes"], row["pyhessian_iterations"])
        rows.append(
            (
                row["method"],
                f"{statistics.median(row['seconds']):.2f}",
                *(f"{unit:.1f}" for unit in units),
                " / ".join(f"{kind['spearman']:.4f}" for kind in kinds),
                " / ".join(percent(kind["median_channel_error"]) for kind in kinds),
                " / ".join(percent(kind["negative"]) for kind in kinds),
            )
        )
    units = ("seconds", "in forward + backward passes", "in PyHessian iterations")
    heads = ("method", *units, "Spearman to exact", "median channel error", "negative")
    what = f"{report['arch']} ({report['model']}), {report['channels']:,} channels, {report['samples']} images"
    return (
        f"{table(heads, rows)}\n\n{what}, {report['threads']} threads. Traces by weights / by activations of every "
        "channel, where PyHessian's iteration is one number for the network; products are Hutchinson's estimator."
    )


def small_input(report: dict[str, Any]) -> str:
    """Early strides at 48 pixels, the defaults marked."""
    rows = [
        (
            row["arch"],
            ", ".join(f"{key}={value}" for key, value in row["variant"].items())
            + default_mark(row),
            str(row["seed"]),
            f"{percent(row['accuracy'])} {interval(row['accuracy_ci95'])}",
            f"{1e3 * row['latency_s']:.2f} ms",
        )
        for row in report["rows"]
    ]
    images = report["rows"][0]["images"]
    budget = f"{report['epochs']} epochs on {images:,} images, width {report['width']}: smaller than a full training."
    budget += " ResNet-50, ShuffleNetV2 x0.5 and micro_expnet take the defaults of their relatives."
    return (
        table(("architecture", "arguments", "seed", "accuracy", "latency"), rows) + f"\n\n{budget}"
    )


def default_mark(row: dict[str, Any]) -> str:
    """Return a mark for the arguments that an architecture gets by default at 48 pixels."""
    arguments = resolve_arch_args(row["arch"], {}, 48)
    given = {**resolve_arch_args(row["arch"], {}, 224), **row["variant"]}
    return " (default)" if all(arguments[key] == value for key, value in given.items()) else ""


def native(report: dict[str, Any]) -> str:
    """Candidates for a small network of native resolution."""
    rows = []
    for row in sorted(report["rows"], key=lambda row: -row["accuracy"]):
        times = report["latency_s"][row["plan"]]
        rows.append(
            (
                row["plan"] + " (`nano_resnet`)" * (row["plan"] == NANO),
                f"{row['params'] / 1e6:.3f} M",
                f"{row['macs'] / 1e6:.1f} M",
                f"{percent(row['accuracy'])} {interval(row['accuracy_ci95'])}",
                percent(row["int8_accuracy"]),
                *(f"{1e3 * times[kind]:.3f} ms" for kind in ("fp32", "int8")),
            )
        )
    heads = ("plan", "params", "MACs", "accuracy", "of INT8", "latency", "of INT8")
    return (
        f"{table(heads, rows)}\n\n{report['epochs']} epochs each, seed 0: a comparison, not a full training. Latencies "
        f"are of one thread, all files in turns on one processor ({report['cpu']})."
    )


def training(report: dict[str, Any]) -> str:
    """The training loop beside a plain one, its augmentation, and the memory formats."""
    loops, formats, shares = [], [], []
    for network in report["networks"]:
        arch, best = network["arch"], network["loops"]["best_plain"]
        for row in network["loops"]["rows"]:
            faster = (
                f"{row['speedup']:.2f} {interval(row['speedup_ci95'], 1, 2)}"
                if "speedup" in row
                else ""
            )
            mark = ", the better one" * (row["loop"] == best)
            loops.append((arch, row["loop"] + mark, f"{row['images_per_s']:.1f}", faster))
        for row in network["formats"]:
            times = (f"{1e3 * row[f'{name}_s']:.1f} ms" for name in ("channels_last", "contiguous"))
            ratio = f"{row['channels_last_speedup']:.2f} {interval(row['speedup_ci95'], 1, 2)}"
            formats.append((arch, str(row["threads"]), *times, ratio))
        step = network["step"]
        shares.append(
            f"{percent(step['share'])} of a step of {1e3 * step['step_s']:.1f} ms ({arch})"
        )
    return "\n\n".join(
        (
            table(("network", "loop", "images/s", "faster than the better plain loop by"), loops),
            "fertool's loop and the plain ones do the same maths in FP32; bf16 is what `--precision auto` takes for "
            "networks without depthwise convolutions on processors that multiply it.",
            f"Augmentation takes {', '.join(shares)}.",
            table(("network", "threads", "channels-last", "contiguous", "ratio"), formats),
            f"Turns of {report['images']:,} images in batches of {report['batch_size']}, {report['rounds']} rounds, "
            f"{report['threads']} threads on {report['cores']} cores ({report['cpu']}), PyTorch {report['torch']}.",
        )
    )


def big_data(report: dict[str, Any]) -> str:
    """More images than memory: what the process needed."""
    mib = 1 / 2**20
    rows = (
        ("pixels", f"{report['pixel_bytes'] * mib:,.0f} MiB, {report['images']:,} images"),
        ("limit", f"{report['budget_bytes'] * mib:,.0f} MiB, enforced by the kernel"),
        ("counted against it", f"{report['peak_limited_bytes'] * mib:,.0f} MiB"),
        ("of these in use (anonymous)", f"{report['peak_anonymous_bytes'] * mib:,.0f} MiB"),
        (
            "resident, with pages of the mapped file",
            f"{report['peak_resident_bytes'] * mib:,.0f} MiB",
        ),
        ("making the file", f"{report['making_s']:.1f} s"),
        ("opening it again", f"{report['opening_s']:.1f} s"),
        ("searching for copies", f"{report['searching_s']:.1f} s"),
        (
            "training",
            f"{report['training_s']:.1f} s, {report['steps']:,} steps, {report['images_per_s']:,.0f} images/s",
        ),
    )
    net = f"{report['arch']} at width {report['width']}, "
    net += f"batches of {report['batch_size']}, {report['threads']} threads."
    return table(("", "peak or time"), rows) + f"\n\n{net}"


def kills(report: dict[str, Any]) -> str:
    """Whether commands that were killed again and again end with the bytes of undisturbed ones, and leave nothing."""
    rows = [
        (
            f"`{found['command']}`",
            str(found["kills"]),
            f"{found['undisturbed_s']:.0f} s",
            ", ".join(f"{life:.1f}" for life in found["lives_s"]),
            "the same" if found["same_bytes"] else "**others**",
            ", ".join(found["left_over"]) or "nothing",
        )
        for found in report["commands"]
    ]
    heads = (
        "command",
        "kills",
        "undisturbed",
        "killed after (s)",
        "bytes of the model",
        "left behind",
    )
    signals = ", ".join(
        f"{count} {name}" for name, count in report["commands"][0]["signals"].items()
    )
    drawn = f"{report['data']}, {report['epochs']} epochs; {signals} each, at moments drawn by seed {report['seed']}"
    return f"{table(heads, rows)}\n\n{drawn}."


def logits(report: dict[str, Any]) -> str:
    """An epoch of distillation with the teacher, and from a file of its logits."""
    names = {"live": "the teacher runs along", "file": "from a logits file"}
    rows = [(names[kind], f"{statistics.median(report[f'{kind}_s']):.2f} s") for kind in names]
    ratio = f"{report['speedup']:.2f} {interval(report['speedup_ci95'], 1, 2)}"
    return "\n\n".join(
        (
            table(("", "epoch"), rows),
            f"The file is faster by {ratio}. Recording its {report['views']} views took {report['recording_s']:.1f} s, "
            f"once, and it has {report['file_bytes']:,} bytes.",
            f"{report['student']} taught by {report['teacher']}, {report['images']:,} images in batches of "
            f"{report['batch_size']}, {report['rounds']} rounds in turns, {report['threads']} threads on "
            f"{report['cores']} cores, PyTorch {report['torch']}.",
        )
    )


Section = tuple[str, str, str, Callable[[dict[str, Any]], str]]
SECTIONS: tuple[Section, ...] = (
    (
        "Recipe 1 on FER2013, sized for two cores",
        "two_cores_eval.json",
        "make two_cores DATA=fer2013.csv",
        chain,
    ),
    ("Our best networks", "best_eval.json", "make best DATA=fer2013.csv", best),
    (
        "FER+",
        "ferplus_eval.json",
        "fertool eval nano.pt --data fer2013.csv --ferplus fer2013new.csv --ferplus-rule majority --json",
        ferplus,
    ),
    (
        "What distillation brings to nano_resnet",
        "nano_distilled.json",
        "fertool distill teacher.logits -o distilled.pt --data fer2013.csv --recipe recipes/best.yaml --epochs 8 "
        "--seeds 0,1,2; fertool train-teacher -o alone.pt --data fer2013.csv --arch nano_resnet --epochs 8 "
        "--batch-size 128 --lr 0.1 --optimizer sgd --weight-decay 2e-4 --lr-schedule onecycle --ema-decay 0.998 "
        "--start-size 32 --patience 0 --rotation 12 --translate 0.08 --scale 0.15 --erasing 0.25 --seeds 0,1,2",
        seeds("distilled", "alone", "nano_alone.json"),
    ),
    (
        "What distillation brings to micro_expnet",
        "micro_distilled.json",
        f"fertool distill teacher.logits -o distilled.pt --temperature 4 --alpha 0.9 {MICRO}; "
        f"fertool train-teacher -o alone.pt {MICRO}",
        seeds("distilled", "alone", "micro_alone.json", THIRD),
    ),
    (
        "A file in place of the teacher",
        "nano_file.json",
        f"fertool distill teacher.logits -o file.pt {SHORT}; fertool distill teacher.pt -o live.pt {SHORT}",
        seeds("from a logits file", "the teacher runs along", "nano_live.json", THIRD),
    ),
    (
        "A file in place of the teacher, without mixup",
        "nano_file_unmixed.json",
        f"fertool distill teacher.logits -o file.pt --mixup 0 {SHORT}; "
        f"fertool distill teacher.pt -o live.pt --mixup 0 {SHORT}",
        seeds("from a logits file", "the teacher runs along", "nano_live_unmixed.json", THIRD),
    ),
    (
        "INT8 against float",
        "two_cores_int8.json",
        "fertool eval pruned.onnx int8.onnx --data fer2013.csv --json",
        int8,
    ),
    (
        "Speed of INT8 networks",
        "int8_speed.json",
        "python benchmarks/int8.py -o int8_speed.json",
        int8_speed,
    ),
    (
        "INT8 without HardSwish",
        "friendly_eval.json",
        "fertool eval float.pt ptq.pt qat.pt friendly.pt --data fer2013.csv --json; "
        "fertool bench float.onnx ptq.onnx qat.onnx friendly.onnx --json",
        friendly,
    ),
    (
        "Speed of pruned networks",
        "prune_speed.json",
        "python benchmarks/prune_speed.py --arch ARCH,… --size 48,96 --round-to 16 --latency 0.55 -o prune_speed.json; "
        "python benchmarks/prune_speed.py MODEL.pt … --data fer2013.csv --samples 1024 --round-to 16 --latency 0.55 "
        "-o prune_speed.json",
        prune_speed,
    ),
    (
        "Time that pruning takes",
        "prune_time.json",
        "python benchmarks/prune_time.py -o prune_time.json",
        prune_time,
    ),
    (
        "Cost of Hessian traces",
        "hessian.json",
        "python benchmarks/hessian.py --data fer2013.csv --threads 2 -o hessian.json",
        hessian,
    ),
    (
        "Early strides at 48 pixels",
        "small_input.json",
        "python benchmarks/small_input.py --data fer2013.csv -o small_input.json",
        small_input,
    ),
    (
        "Early strides of EfficientNet-B0",
        "small_input_efficientnet.json",
        "python benchmarks/small_input.py --data fer2013.csv --arch efficientnet_b0 --share 1 -o small_input.json",
        small_input,
    ),
    (
        "Candidates for 48 pixels",
        "native.json",
        "python benchmarks/native.py --data fer2013.csv -o native.json",
        native,
    ),
    (
        "Which channels to remove",
        "criteria.json",
        "python benchmarks/criteria.py micro.pt --data fer2013.csv --targets 0.5,0.3 -o criteria.json",
        criteria,
    ),
    *(
        (
            f"Half the MACs of {name}{width}{title}",
            f"pruners_{arch}{folder}{suffix}.json",
            f"python benchmarks/pruners.py {arch}.pt --data fer2013.csv --epochs 2{option} -o pruners.json",
            pruners,
        )
        for arch, name in (
            ("mobilenet_v2", "MobileNetV2"),
            ("mobilenet_v3_large", "MobileNetV3-Large"),
        )
        for width, folder in ((" at full width", "_wide"), ("", ""))
        for title, suffix, option in (
            (", trained at prune's own rate", "_slow", " --lr 5e-4"),
            ("", "", ""),
        )
    ),
    (
        "Schedules",
        "schedules.json",
        "python benchmarks/schedules.py micro.pt --data third.csv --target-params 0.5 -o schedules.json",
        schedules,
    ),
    *(
        (
            f"Half of {name}",
            f"half_{arch}.json",
            f"python benchmarks/half.py {arch}.pt --data fer2013.csv --epochs 8 --lr 1e-3 --keep half -o half.json",
            half,
        )
        for arch, name in (
            ("mobilenet_v3_large", "MobileNetV3-Large"),
            ("mobilenet_v2", "MobileNetV2"),
        )
    ),
    (
        "Small files",
        "small_files.json",
        "python benchmarks/small_files.py MODEL.pt:BITS … --data fer2013.csv --keep mixed -o small_files.json",
        small_files,
    ),
    (
        "Pruned and quantised",
        "pruned_mixed.json",
        "fertool eval unpruned.pt pruned.pt --data fer2013.csv --json",
        pruned_mixed,
    ),
    *(
        (
            f"Who gets the bits of {name}",
            f"bits_{arch}.json",
            f"python benchmarks/bits.py {arch}.pt --data fer2013.csv --average-bits {mean} -o bits.json",
            bits,
        )
        for arch, name, mean in (
            ("nano_resnet", "nano_resnet", 2.5),
            ("mobilenet_v2", "MobileNetV2", 3.22),
        )
    ),
    (
        "Bits of activations",
        "activation_bits.json",
        "python benchmarks/activation_bits.py mobilenet_v2.pt --data fer2013.csv -o activation_bits.json",
        activation_bits,
    ),
    (
        "Packed weights",
        "packing.json",
        "python benchmarks/packing.py mixed/*.pt -o packing.json",
        packing,
    ),
    (
        "A dynamic network",
        "dynamic.json",
        "python benchmarks/dynamic.py micro.pt dynamic.pt --data fer2013.csv -o dynamic.json",
        dynamic,
    ),
    (
        "Speed of training",
        "training.json",
        "python benchmarks/training.py -o training.json",
        training,
    ),
    (
        "More images than memory",
        "big_data.json",
        "python benchmarks/big_data.py -o big_data.json",
        big_data,
    ),
    ("Killed and resumed", "kills.json", "python benchmarks/kills.py -o kills.json", kills),
    (
        "Distillation without the teacher",
        "logits.json",
        "python benchmarks/logits.py -o logits.json",
        logits,
    ),
)


def draw_table() -> None:
    """Draw the table that `fertool bench` prints for the chain."""
    from rich.console import Console

    from fertool.report.tables import bench_table

    if (FOLDER / "two_cores_bench.json").exists():
        console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(bench_table(load("two_cores_bench.json")))
        picture = console.export_svg(
            title="fertool bench teacher.onnx student.onnx pruned.onnx int8.onnx"
        )
        # The picture must not fetch its font.
        TABLE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
