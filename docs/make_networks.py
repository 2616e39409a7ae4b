"""Print docs/networks.md from docs/results/networks.json, which benchmarks/networks.py writes.

See `make results`.
"""

from __future__ import annotations

from typing import Any

from tables import load, table

Row = dict[str, Any]

_HEAD = """# Networks of other people

Made by `make results` from `docs/results/networks.json` (`python benchmarks/networks.py`); \
do not edit. {count}
networks of torchvision and timm: random weights (nothing is downloaded), \
{seconds:.0f} s of training on drawn faces on
one core (fewer where 97 % of other faces were right before), \
then the last linear layer solved for by least squares.
{images} images for calibration and as many others for agreement. One thread, {machine}.

- **import**: largest difference of a logit from the library's own module, \
which passes within 1e-5 of the largest
  logit.
- **prune**: MACs left where half was asked, in steps of {round_to} channels, \
by sizes of weights; in brackets how far
  the smaller network's logits are from those of the network with the same channels masked, \
relative to the largest.
- **top-1**: accuracy on the images for agreement before quantization. \
The seconds are few for large networks: a
  network near chance (1 in 7) has logits close together, and rounding changes its top class easily.
- **INT8**: images with the same top class as floats, each weight rounded by itself; \
how many of the layers with weights
  are integer.
- **export**: the same top class in ONNX Runtime as in PyTorch, floats and INT8.
- **speed** in ONNX Runtime, of the pruned network and of the INT8 one, \
over that of the unpruned floats. Another
  process ran on the second core meanwhile; the files were timed interleaved.

{totals}
"""


def main() -> None:
    """Write the page to stdout."""
    report = load("networks.json")
    rows: list[Row] = report["rows"]
    totals = ", ".join(f"**{_passed(rows, name)} {verb}**" for name, verb in _STEPS.items())
    head = _HEAD.format(
        count=len(rows),
        images=report["images"],
        seconds=report["seconds"],
        round_to=report["round_to"],
        machine=report.get("machine", "shared CPU"),
        totals=f"Of {len(rows)}: {totals}.",
    )
    columns = (
        "network",
        "params",
        "import",
        "prune",
        "top-1",
        "INT8",
        "export",
        "speed pruned, INT8",
    )
    print(f"{head}\n{table(columns, [_cells(row) for row in rows])}")
    failures = [f"- `{row['source']}`: {reason}" for row in rows for reason in _reasons(row)]
    if failures:
        print("\n## What does not work, and why\n\n" + "\n".join(failures))


_STEPS = {
    "import": "are imported",
    "prune": "are pruned to within 5 % of half",
    "quantize": "are quantized",
    "export": "run in ONNX Runtime",
}
_NEAR = (0.475, 0.525)


def _passed(rows: list[Row], name: str) -> int:
    return sum(_ok(row, name) for row in rows)


def _ok(row: Row, name: str) -> bool:
    about = row.get(name)
    if about is None or "failed" in about:
        return False
    return name != "prune" or _NEAR[0] <= about["macs_ratio"] <= _NEAR[1]


def _cells(row: Row) -> list[str]:
    name = f"`{row['source']}`" + (f" at {row['size']}" if row["size"] != 64 else "")
    done = {step: step in row and "failed" not in row[step] for step in _STEPS}
    pruned = (
        f"{row['prune']['macs_ratio']:.3f} ({row['prune']['masking_error']:.0e})"
        if done["prune"]
        else "no"
    )
    int8 = "no"
    if done["quantize"]:
        found = row["quantize"]
        int8 = f"{found['agreement']:.1%}, {found['integer_layers']}/{found['layers']}"
    return [
        name,
        f"{row['params'] / 1e6:.1f} M" if "params" in row else "",
        f"{row['import']['max_abs_diff']:.0e}" if done["import"] else "no",
        pruned,
        f"{row['training']['top1']:.0%}" if "training" in row else "",
        int8,
        _exported(row) if done["export"] else "no",
        _speeds(row) if done["export"] else "",
    ]


def _exported(row: Row) -> str:
    return ", ".join(
        f"{row['export'][kind]['top1_agreement']:.0%}"
        for kind in ("float", "int8")
        if kind in row["export"]
    )


def _speeds(row: Row) -> str:
    whole = row["export"]["float"]["median_s"]
    kinds = [kind for kind in ("pruned", "int8") if kind in row["export"]]
    return ", ".join(f"{whole / row['export'][kind]['median_s']:.2f}" for kind in kinds)


def _reasons(row: Row) -> list[str]:
    reasons = []
    for step in _STEPS:
        if "failed" in row.get(step, {}):
            # Exporters append how to report the problem.
            reason = row[step]["failed"].partition(". Please")[0]
            reasons.append(f"{step}: {reason}")
    if "prune" in row and "failed" not in row["prune"] and not _ok(row, "prune"):
        reasons.append(
            f"prune: {row['prune']['macs_ratio']:.3f} of the MACs, not within 5 % of half"
        )
    return reasons


if __name__ == "__main__":
    main()
