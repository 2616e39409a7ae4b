"""Print docs/targets/table.md from docs/results/formats.json, which benchmarks/formats.py writes.

See `make results`.
"""

from __future__ import annotations

from typing import Any

from tables import load, table

Row = dict[str, Any]

_HEAD = """# Formats in their runtimes

Made by `make results` from `docs/results/formats.json` (`python benchmarks/formats.py`); do not \
edit. Of each network that is listed, on {images} images of PublicTest: nano_resnet is the trained \
file of `models/`; the others are trained for minutes alone, to tell happy faces from all others.

- **difference**: the largest of a probability, from PyTorch's on the same network.
- **top-1**: images with the same top class. `export` writes no quantized file below 99 % on its \
own images.
- **time** of one image on one thread, median; in brackets relative to ONNX Runtime with the \
`.onnx` file, from alternating passes on a busy machine.
- INT8: 8 bits, weights rounded to nearest. Mixed: 3 to 8 bits, drawn by channel. Dynamic: two \
widths and a gate.
"""
_KINDS = {"float": "Float", "int8": "INT8", "mixed": "Mixed", "dynamic": "Dynamic"}
_RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "oldest": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tflite": "LiteRT",
    "executorch": "ExecuTorch",
}
_SUFFIXES = {"openvino": ".xml", "executorch": ".pte"}
_COLUMNS = ("network", "difference", "top-1", "kB", "time, µs")


def main() -> None:
    """Write the page to stdout."""
    report = load("formats.json")
    rows: list[Row] = report["rows"]
    print(_HEAD.format(images=report["images"]))
    print(_summary(rows))
    for kind, title in _KINDS.items():
        print(f"\n## {title}")
        mine = [row for row in rows if row["kind"] == kind and row["runtime"]]
        for heading, group in _by_heading(mine).items():
            print(f"\n### {heading}\n\n{table(_COLUMNS, [_cells(row) for row in group])}")
    failures = [row for row in rows if "failed" in row]
    if failures:
        print("\n## What cannot be written\n\n" + "\n".join(map(_failure, failures)))


def _summary(rows: list[Row]) -> str:
    """Return a table of how many networks that a format takes have the same top class on 99 %."""
    lines = []
    for kind in _KINDS:
        mine = [row for row in rows if row["kind"] == kind and row["runtime"]]
        for heading, group in _by_heading(mine).items():
            measured = [row for row in group if "failed" not in row]
            passed = [row for row in measured if row["top1_agreement"] >= 0.99]
            largest = max((row["max_probability_diff"] for row in measured), default=0.0)
            counts = f"{len(passed)} of {len(measured)}"
            lines.append((_KINDS[kind], heading, counts, _least(measured), f"{largest:.2g}"))
    heads = ("kind", "file and runtime", "at 99 % or more", "least top-1", "largest difference")
    return table(heads, lines)


def _least(rows: list[Row]) -> str:
    """Return the network whose top class differs most often, where one differs."""
    least = min(rows, key=lambda row: float(row["top1_agreement"]), default=None)
    if least is None or least["top1_agreement"] == 1:
        return ""
    return f"{least['top1_agreement']:.1%} `{least['network']}`".replace("%", " %")


def _by_heading(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    versions = {row["runtime"]: row["version"] for row in rows if "version" in row}
    for row in rows:
        suffix = _SUFFIXES.get(row["format"], f".{row['format']}")
        is_quantized = row["kind"] in ("int8", "mixed")
        form = f" {row['form']}" if row["form"] and is_quantized else ""
        runtime = f"{_RUNTIMES[row['runtime']]} {versions.get(row['runtime'], '')}".strip()
        groups.setdefault(f"`{suffix}`{form}, {runtime}", []).append(row)
    return groups


def _cells(row: Row) -> tuple[str, ...]:
    name = f"`{row['network']}`"
    if "failed" in row:
        return (name, "refused", "", "", "")
    time = f"{row['latency_s'] * 1e6:,.0f}"
    if "relative_time" in row:
        time += f" ({row['relative_time']:.2f})"
    agreement = f"{row['top1_agreement']:.1%}".replace("%", " %")
    size = f"{row['size_bytes'] / 1e3:,.0f}"
    return (name, f"{row['max_probability_diff']:.2g}", agreement, size, time)


def _failure(row: Row) -> str:
    suffix = _SUFFIXES.get(row["format"], f".{row['format']}")
    return f"- `{row['network']}`, {row['kind']}, `{suffix}`: {row['failed']}"


if __name__ == "__main__":
    main()
