"""Print docs/results.md from the JSON files in docs/results/, and draw docs/result-table.svg; see `make results`.

Nothing in the page is written by hand: each table says which command made its file.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fertool.models.registry import resolve_arch_args

FOLDER = Path(__file__).parent / "results"
TABLE = Path(__file__).parent / "result-table.svg"

HEAD = """# Results

Made by `make results` from the JSON files in `docs/results/`; do not edit. Accuracies are on FER2013's **PublicTest**
(3,589 images), the validation split on which epochs were chosen, single crop, so they flatter a little; PrivateTest
has not been looked at. Intervals are 95 %. Speeds are ONNX Runtime's on two cores of a shared AMD EPYC (AVX2, no VNNI)
and hold as ratios within one run."""


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


def chain(evaluation: dict[str, Any]) -> str:
    """Accuracy, cost and speed of every stage."""
    measured = {Path(r["file"]).stem: r for r in load("micro_expnet_bench.json")["results"]}
    speedups = {Path(c["candidate"]).stem: c for c in load("micro_expnet_bench.json")["comparisons"]}
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
    rows.append(("*source, test split*", "1.18 M", "90 M", "", "*71.2 %*", "", "", "*35.7 ms, Raspberry Pi 4*", ""))
    heads = ("stage", "params", "MACs", "bytes", "accuracy", "without copies", "macro F1", "latency", "speed-up")
    note = (
        "\n\nSeed 0; the logs of the trainings are beside the JSON. Last row: the source's own figures (Rejina 2026), "
        "on another split, machine, teacher and budget."
    )
    return table(heads, rows) + note + "\n\n" + pairs(evaluation["comparisons"])


def pairs(comparisons: list[dict[str, Any]]) -> str:
    """Paired differences of accuracy on the same images."""
    rows = [
        (
            f"{Path(c['candidate']).stem} less {Path(c['baseline']).stem}",
            f"{100 * c['difference']:+.2f}",
            interval(c["difference_ci95"], 100, 2),
            f"{c['mcnemar_p']:.3f}",
        )
        for c in comparisons
    ]
    return table(("pair", "points", "interval", "McNemar p"), rows)


def int8(evaluation: dict[str, Any]) -> str:
    """The INT8 file beside the float file of the same network."""
    sizes = {Path(r["file"]).stem: r["size_bytes"] for r in load("micro_expnet_bench.json")["results"]}
    ratio = sizes["int8"] / sizes["pruned"]
    size = f"{sizes['int8']:,} bytes against {sizes['pruned']:,}, a ratio of {ratio:.3f}"
    return f"{pairs(evaluation['comparisons'])}\n\nOn disk: {size}."


def prune_speed(report: dict[str, Any]) -> str:
    """Half the MACs against the unpruned network, by rounding of the widths."""
    roundings = sorted({p["round_to"] for row in report["rows"] for p in row["pruned"]})
    rows = []
    for row in report["rows"]:
        found = {p["round_to"]: p for p in row["pruned"]}
        cells = [
            f"{p['speedup']:.2f} {interval(p['speedup_ci95'], 1, 2)}, MACs {p['macs_ratio']:.3f}" if p else "-"
            for p in map(found.get, roundings)
        ]
        rows.append((row["arch"], f"{1e3 * row['latency_s']:.2f} ms", *cells))
    heads = ("architecture", "unpruned", *(f"--round-to {r}" for r in roundings))
    return table(heads, rows) + f"\n\nRandom weights, {report['size']} x {report['size']} pixels, one thread."


def hessian(report: dict[str, Any]) -> str:
    """Cost and agreement of the traces."""
    rows = [
        (
            row["method"],
            f"{min(row['seconds']):.2f}",
            f"{row['forward_backward_passes']:.1f}",
            f"{row['spearman']:.4f}" if "spearman" in row else "",
            f"{percent(row['median_channel_error'])}" if "median_channel_error" in row else "",
        )
        for row in report["methods"]
    ]
    heads = ("method", "seconds", "in forward + backward passes", "Spearman to exact", "median channel error")
    what = f"{report['arch']} ({report['model']}), {report['channels']:,} channels, {report['samples']} images"
    return table(heads, rows) + f"\n\n{what}, {report['threads']} threads."


def small_input(report: dict[str, Any]) -> str:
    """Early strides at 48 pixels, the defaults marked."""
    rows = [
        (
            row["arch"],
            ", ".join(f"{key}={value}" for key, value in row["variant"].items()) + default_mark(row),
            str(row["seed"]),
            f"{percent(row['accuracy'])} {interval(row['accuracy_ci95'])}",
            f"{1e3 * row['latency_s']:.2f} ms",
        )
        for row in report["rows"]
    ]
    images = report["rows"][0]["images"]
    budget = f"{report['epochs']} epochs on {images:,} images, width {report['width']}: smaller than a full training."
    budget += " ResNet-50, ShuffleNetV2 x0.5 and micro_expnet take the defaults of their relatives."
    return table(("architecture", "arguments", "seed", "accuracy", "latency"), rows) + f"\n\n{budget}"


def default_mark(row: dict[str, Any]) -> str:
    """Return a mark for the arguments that an architecture gets by default at 48 pixels."""
    arguments = resolve_arch_args(row["arch"], {}, 48)
    given = {**resolve_arch_args(row["arch"], {}, 224), **row["variant"]}
    return " (default)" if all(arguments[key] == value for key, value in given.items()) else ""


Section = tuple[str, str, str, Callable[[dict[str, Any]], str]]
SECTIONS: tuple[Section, ...] = (
    ("Recipe 1 on FER2013", "micro_expnet_eval.json", "make micro_expnet DATA=fer2013.csv", chain),
    (
        "INT8 against float",
        "micro_expnet_int8.json",
        "fertool eval pruned.onnx int8.onnx --data fer2013.csv --json",
        int8,
    ),
    (
        "Speed of pruned networks",
        "prune_speed.json",
        "python benchmarks/prune_speed.py -o prune_speed.json",
        prune_speed,
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
)


def load(name: str) -> dict[str, Any]:
    """Return one file of docs/results/."""
    content: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return content


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f} %"


def interval(bounds: list[float], factor: float = 100, decimals: int = 1) -> str:
    """Return an interval in brackets."""
    return f"[{factor * bounds[0]:.{decimals}f}, {factor * bounds[1]:.{decimals}f}]"


def draw_table() -> None:
    """Draw the table that `fertool bench` prints for the chain."""
    from rich.console import Console

    from fertool.report.tables import bench_table

    if (FOLDER / "micro_expnet_bench.json").exists():
        console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(bench_table(load("micro_expnet_bench.json")))
        picture = console.export_svg(title="fertool bench teacher.onnx student.onnx pruned.onnx int8.onnx")
        # The picture must not fetch its font.
        TABLE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main()
