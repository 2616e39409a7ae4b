"""What pruning and quantising change, and what decides it, as rows of text; see grids.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fertool.report.grids import Data, Grid, speedup_cell
from fertool.report.units import (
    MISSING,
    count_text,
    hessian_text,
    p_value_text,
    percent_text,
    size_text,
    time_text,
)


def plan_grid(before: Mapping[str, int], *afters: Mapping[str, int]) -> Grid:
    """Lay out the widths of a pruning plan, by name, or of the several widths of a dynamic network.

    What is no more, because its block has gone, has 0.
    """
    rows = [
        (
            name,
            f"{width:,}",
            *(f"{after.get(name, 0):,}" for after in afters),
            f"{100 * afters[0].get(name, 0) / width:.0f} %" if width else MISSING,
        )
        for name, width in before.items()
    ]
    if len(afters) == 1:
        return Grid(("channels of", ">before", ">after", ">kept"), tuple(rows))
    heads = (f">width {number}" for number in range(1, len(afters) + 1))
    return Grid(("channels of", ">before", *heads), tuple(row[:-1] for row in rows))


def nodes_grid(nodes: Sequence[Data]) -> Grid:
    """Lay out the operators of a graph, from `show --layers --json`."""
    rows = [
        (
            node["name"],
            node["op"],
            ", ".join(node.get("in", ())),
            " ".join(f"{name}={_plain(value)}" for name, value in node.get("args", {}).items()),
        )
        for node in nodes
    ]
    return Grid(("node", "operator", "reads", "arguments"), tuple(rows))


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def layers_grid(layers: Sequence[Data]) -> Grid:
    """Lay out what can be done with each layer, from `import --json`."""
    rows = [
        (
            layer["name"],
            layer["operator"],
            f"{layer['channels']:,}",
            count_text(layer["macs"]),
            "yes"
            if layer["prunable"]
            else f"no: {layer['stays_because'] or 'nothing is left to remove'}",
            "yes" if layer["integer"] else "no",
        )
        for layer in layers
    ]
    return Grid(
        ("layer", "operator", ">channels", ">MACs", "can be pruned", "can be integer"), tuple(rows)
    )


def change_grid(before: Data, after: Data) -> Grid:
    """Lay out what a step does to any of `size_bytes`, `params`, `macs`, `latency_s` and `accuracy` in both maps.

    `after` may have `speedup`, `difference`, their intervals and `mcnemar_p`; `average_bits` and `top1_agreement`.
    With `commonest_share` in both, both were shown images without labels.
    """
    shown = {
        "size_bytes": ("size", size_text),
        "params": ("params", count_text),
        "macs": ("MACs", count_text),
    }
    rows = [
        (name, text(before[key]), text(after[key]), f"{after[key] / before[key]:.3f}")
        for key, (name, text) in shown.items()
        if before.get(key) and after.get(key) is not None
    ]
    if before.get("latency_s") and after.get("latency_s"):
        times = (time_text(before["latency_s"]), time_text(after["latency_s"]))
        rows.append(("latency", *times, speedup_cell(after)))
    if before.get("accuracy") is not None and after.get("accuracy") is not None:
        points = f"{100 * (after['accuracy'] - before['accuracy']):+.1f} points"
        if "difference_ci95" in after:
            low, high = after["difference_ci95"]
            points += f"\n{100 * low:+.1f} to {100 * high:+.1f}, McNemar p {p_value_text(after['mcnemar_p'])}"
        rows.append(
            ("accuracy", percent_text(before["accuracy"]), percent_text(after["accuracy"]), points)
        )
    if "average_bits" in after:
        rows.insert(
            1,
            (
                "bits a weight",
                "32",
                f"{after['average_bits']:.2f}",
                f"{after['average_bits'] / 32:.3f}",
            ),
        )
        rows.append(("same answer", "", percent_text(after["top1_agreement"]), ""))
    if after.get("commonest_share") is not None:
        rows.append(("accuracy", "", "not measured", ""))
        rows.append(("same answer", "", percent_text(after["top1_agreement"]), ""))
        shares = (percent_text(before["commonest_share"]), percent_text(after["commonest_share"]))
        rows.append(("commonest class", *shares, ""))
    return Grid(("", ">before", ">after", ">ratio"), tuple(rows))


def bits_grid(quant: Data) -> Grid:
    """Lay out `quant` of `show --json`: for each layer how many channels have how many bits.

    Where activations have fewer than 8, a last row says how many layers' have how many.
    """
    layers = {name: entry["bits"] for name, entry in quant["weights"].items()}
    activations = list(quant["activations"].values())
    if min(activations, default=8) < 8:
        layers["activations of layers"] = activations
    widths = sorted({width for bits in layers.values() for width in bits})
    rows = [
        (
            name,
            *("all" if {width} == set(bits) else str(bits.count(width) or "") for width in widths),
        )
        for name, bits in layers.items()
    ]
    return Grid(("layer", *(f">{width} bits" for width in widths)), tuple(rows))


def sensitivity_grid(sensitivity: Data) -> Grid:
    """Lay out `hessian-sensitivity --json`: for each layer its channels, and the mean and extreme traces."""
    rows = []
    for layer in sensitivity["layers"]:
        traces, activations = layer["weight_trace"], layer.get("activation_trace")
        weights = count_text(layer["weight_params"] * len(traces))
        figures = (sum(traces) / len(traces), min(traces), max(traces))
        by_activation = f"{sum(activations) / len(activations):.3g}" if activations else MISSING
        cells = (*(f"{value:.3g}" for value in figures), by_activation)
        rows.append((layer["name"], f"{len(traces):,}", weights, *cells))
    headers = (
        "layer",
        ">channels",
        ">weights",
        ">mean trace",
        ">smallest",
        ">largest",
        ">mean by\nactivation",
    )
    return Grid(headers, tuple(rows))


def sensitivity_caption(sensitivity: Data) -> str:
    """Say what the traces are."""
    probes = sensitivity["probes"]
    how = f"{probes} probes" if probes else "exact"
    effort = f"{sensitivity['samples']:,} images, {how}"
    return f"Hessian trace of the {hessian_text(sensitivity)}, per output channel; {effort}"
