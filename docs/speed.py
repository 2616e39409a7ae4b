"""The tables of docs/results.md on training, traces, memory and killed commands."""

from __future__ import annotations

import statistics
from typing import Any

from tables import milliseconds, percent, ratio, table

_MIB = 2**20


def hessian_table(report: dict[str, Any]) -> str:
    """Cost and agreement of the traces, beside one iteration of PyHessian."""
    rows = []
    for row in report["methods"]:
        kinds = [row[kind] for kind in ("weight", "activation") if kind in row]
        rows.append(
            (
                row["method"],
                f"{statistics.median(row['seconds']):.2f}",
                f"{row['forward_backward_passes']:.1f}",
                f"{row['pyhessian_iterations']:.1f}",
                " / ".join(f"{kind['spearman']:.4f}" for kind in kinds),
                " / ".join(percent(kind["median_channel_error"]) for kind in kinds),
                " / ".join(percent(kind["negative"]) for kind in kinds),
            )
        )
    heads = (
        "method",
        "seconds",
        "in forward + backward passes",
        "in PyHessian iterations",
        "Spearman to exact",
        "median channel error",
        "negative",
    )
    return table(heads, rows)


def training_loops_table(report: dict[str, Any]) -> str:
    """The training loop beside a plain one."""
    rows = []
    for network in report["networks"]:
        for row in network["loops"]["rows"]:
            loop = row["loop"]
            if loop == network["loops"]["best_plain"]:
                loop += ", the better one"
            faster = ""
            if "speedup" in row:
                faster = ratio(row["speedup"], row["speedup_ci95"])
            rows.append((network["arch"], loop, f"{row['images_per_s']:.1f}", faster))
    return table(("network", "loop", "images/s", "faster than the better plain loop by"), rows)


def augmentation_shares(report: dict[str, Any]) -> str:
    """What augmentation takes of a training step."""
    found = []
    for network in report["networks"]:
        step = network["step"]
        time = f"a step of {milliseconds(step['step_s'], 1)} ({network['arch']})"
        found.append(f"{percent(step['share'])} of {time}")
    return ", ".join(found)


def memory_formats_table(report: dict[str, Any]) -> str:
    """Channels-last beside contiguous tensors."""
    rows = []
    for network in report["networks"]:
        for row in network["formats"]:
            rows.append(
                (
                    network["arch"],
                    str(row["threads"]),
                    milliseconds(row["channels_last_s"], 1),
                    milliseconds(row["contiguous_s"], 1),
                    ratio(row["channels_last_speedup"], row["speedup_ci95"]),
                )
            )
    return table(("network", "threads", "channels-last", "contiguous", "ratio"), rows)


def big_data_table(report: dict[str, Any]) -> str:
    """More images than memory: what the process needed."""

    def mebibytes(key: str) -> str:
        return f"{report[key] / _MIB:,.0f} MiB"

    steps = f"{report['steps']:,} steps, {report['images_per_s']:,.0f} images/s"
    rows = (
        ("pixels", f"{mebibytes('pixel_bytes')}, {report['images']:,} images"),
        ("limit", f"{mebibytes('budget_bytes')}, enforced by the kernel"),
        ("counted against it", mebibytes("peak_limited_bytes")),
        ("of these in use (anonymous)", mebibytes("peak_anonymous_bytes")),
        ("resident, with pages of the mapped file", mebibytes("peak_resident_bytes")),
        ("making the file", f"{report['making_s']:.1f} s"),
        ("opening it again", f"{report['opening_s']:.1f} s"),
        ("searching for duplicates", f"{report['searching_s']:.1f} s"),
        ("training", f"{report['training_s']:.1f} s, {steps}"),
    )
    return table(("", "peak or time"), rows)


def kills_table(report: dict[str, Any]) -> str:
    """Whether killed commands end with the bytes of undisturbed ones, and leave nothing behind."""
    rows = []
    for found in report["commands"]:
        bytes_found = "the same" if found["same_bytes"] else "**others**"
        rows.append(
            (
                f"`{found['command']}`",
                str(found["kills"]),
                f"{found['undisturbed_s']:.0f} s",
                ", ".join(f"{life:.1f}" for life in found["lives_s"]),
                bytes_found,
                ", ".join(found["left_over"]) or "nothing",
            )
        )
    heads = (
        "command",
        "kills",
        "undisturbed",
        "killed after (s)",
        "bytes of the model",
        "left behind",
    )
    return table(heads, rows)


def signals(report: dict[str, Any]) -> str:
    """How many of which signals each command got."""
    counts = report["commands"][0]["signals"]
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def logits_table(report: dict[str, Any]) -> str:
    """An epoch of distillation with the teacher, and from a file of its logits."""
    rows = []
    for key, name in (("live_s", "live teacher"), ("file_s", "from a logits file")):
        rows.append((name, f"{statistics.median(report[key]):.2f} s"))
    return table(("", "epoch"), rows)
