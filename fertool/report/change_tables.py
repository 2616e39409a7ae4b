"""What pruning and quantization change in a model, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fertool.report.text_table import Data, TextTable
from fertool.report.units import (
    MISSING,
    count_text,
    p_value_text,
    percent_text,
    size_text,
    speedup_cell,
    time_text,
)

_Row = tuple[str, str, str, str]
_COUNTED = {
    "size_bytes": ("size", size_text),
    "params": ("params", count_text),
    "macs": ("MACs", count_text),
}


def layout_plan(before: Mapping[str, int], *afters: Mapping[str, int]) -> TextTable:
    """Lay out the channels of a pruning plan by name, or those of a dynamic network's profiles.

    A group that is not in the plan, because its block was removed, has 0.
    """
    rows = []
    for name, channels in before.items():
        cells = [name, f"{channels:,}"]
        for after in afters:
            cells.append(f"{after.get(name, 0):,}")
        if len(afters) == 1:
            cells.append(_kept_text(channels, afters[0].get(name, 0)))
        rows.append(tuple(cells))

    headers = [">after", ">kept"]
    if len(afters) != 1:
        # The profiles of a dynamic network have no names, and no common fraction that is kept.
        headers = []
        for number, _ in enumerate(afters, start=1):
            headers.append(f">width {number}")
    return TextTable(("channels of", ">before", *headers), tuple(rows))


def _kept_text(before: int, after: int) -> str:
    # Of a group whose block an earlier pruning removed.
    if not before:
        return MISSING
    return f"{100 * after / before:.0f} %"


def layout_change(before: Data, after: Data) -> TextTable:
    """Lay out what a step does to a model.

    Both maps have any of `size_bytes`, `params`, `macs`, `latency_s` and `accuracy`. `after` may
    have `speedup`, `difference`, their intervals and `mcnemar_p`; `average_bits` and
    `top1_agreement`. With `commonest_share` in both, both were evaluated on images without labels.
    """
    rows = []
    for key, (name, text) in _COUNTED.items():
        if before.get(key) and after.get(key) is not None:
            ratio = f"{after[key] / before[key]:.3f}"
            rows.append((name, text(before[key]), text(after[key]), ratio))
    if "average_bits" in after:
        # Beside the size, which follows from it.
        rows.insert(1, _bits_row(after["average_bits"]))

    if before.get("latency_s") and after.get("latency_s"):
        rows.append(_latency_row(before, after))
    if before.get("accuracy") is not None and after.get("accuracy") is not None:
        rows.append(_accuracy_row(before, after))
    if "average_bits" in after:
        rows.append(_agreement_row(after))
    if after.get("commonest_share") is not None:
        rows += _unlabeled_rows(before, after)
    return TextTable(("", ">before", ">after", ">ratio"), tuple(rows))


def _bits_row(average_bits: float) -> _Row:
    # Ratio and "before" are those of float32.
    return ("bits a weight", "32", f"{average_bits:.2f}", f"{average_bits / 32:.3f}")


def _latency_row(before: Data, after: Data) -> _Row:
    times = time_text(before["latency_s"]), time_text(after["latency_s"])
    return ("latency", *times, speedup_cell(after))


def _accuracy_row(before: Data, after: Data) -> _Row:
    """Return both accuracies and their difference in points of percent, with its interval."""
    points = f"{100 * (after['accuracy'] - before['accuracy']):+.1f} points"
    if "difference_ci95" in after:
        low, high = after["difference_ci95"]
        p_value = p_value_text(after["mcnemar_p"])
        points += f"\n{100 * low:+.1f} to {100 * high:+.1f}, McNemar p {p_value}"
    return ("accuracy", percent_text(before["accuracy"]), percent_text(after["accuracy"]), points)


def _agreement_row(after: Data) -> _Row:
    return ("same prediction", "", percent_text(after["top1_agreement"]), "")


def _unlabeled_rows(before: Data, after: Data) -> list[_Row]:
    """Return what can be compared on images without labels, where no accuracy is known."""
    fractions = percent_text(before["commonest_share"]), percent_text(after["commonest_share"])
    return [
        ("accuracy", "", "not measured", ""),
        _agreement_row(after),
        ("commonest class", *fractions, ""),
    ]


def layout_bits(quant: Data) -> TextTable:
    """Lay out for each layer how many of its channels have how many bits.

    Where activations have fewer than 8, a last row counts the layers by the bits of theirs.
    """
    layers: dict[str, Sequence[int]] = {
        name: entry["bits"] for name, entry in quant["weights"].items()
    }
    activations = list(quant["activations"].values())
    if min(activations, default=8) < 8:
        layers["activations of layers"] = activations
    found: set[int] = set()
    for bits in layers.values():
        found.update(bits)
    columns = sorted(found)

    headers = ["layer"]
    for column in columns:
        headers.append(f">{column} bits")
    rows = []
    for name, bits in layers.items():
        cells = [name]
        for column in columns:
            cells.append(_bits_cell(bits, column))
        rows.append(tuple(cells))
    return TextTable(tuple(headers), tuple(rows))


def _bits_cell(bits: Sequence[int], column: int) -> str:
    """Return how many channels have as many bits as the column; nothing for none."""
    count = bits.count(column)
    if count == len(bits):
        return "all"
    return str(count) if count else ""
