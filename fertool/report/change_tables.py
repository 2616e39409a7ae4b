"""What pruning and quantization change in a model, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import UNSET

from fertool.report.text_table import TextTable
from fertool.report.units import (
    MISSING,
    count_text,
    p_value_text,
    percent_text,
    points_text,
    size_text,
    speedup_cell,
    time_text,
)
from fertool.results import Change, ModelSummary, UnlabeledChange
from fertool.spec import QuantSpec

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
        for number in range(1, len(afters) + 1):
            headers.append(f">width {number}")
    return TextTable(("channels of", ">before", *headers), tuple(rows))


def _kept_text(before: int, after: int) -> str:
    # Of a group whose block an earlier pruning removed.
    if not before:
        return MISSING
    return f"{100 * after / before:.0f} %"


@dataclass(frozen=True)
class Costs:
    """What a model costs, as far as it is known."""

    size_bytes: int | None = None
    params: int | None = None
    macs: int | None = None

    @classmethod
    def of(cls, model: ModelSummary) -> Costs:
        """Return the costs of a model."""
        return cls(model.size_bytes, model.params, model.macs)


def layout_change(
    before: Costs, after: Costs, change: Change, unlabeled: UnlabeledChange | None = None
) -> TextTable:
    """Lay out what a step does to a model: its costs, and what was measured of both networks.

    Without labels `unlabeled` stands in the place of accuracies.
    """
    rows = []
    for key, (name, text) in _COUNTED.items():
        old, new = getattr(before, key), getattr(after, key)
        if old and new is not None:
            rows.append((name, text(old), text(new), f"{new / old:.3f}"))
    if change.average_bits is not UNSET:
        # Beside the size, which follows from it.
        rows.insert(1, _bits_row(change.average_bits))

    rows += _latency_rows(change)
    rows += _accuracy_rows(change)
    if change.average_bits is not UNSET and change.top1_agreement is not UNSET:
        rows.append(_agreement_row(change.top1_agreement))
    if unlabeled is not None:
        rows += _unlabeled_rows(unlabeled)
    return TextTable(("", ">before", ">after", ">ratio"), tuple(rows))


def _bits_row(average_bits: float) -> _Row:
    # Ratio and "before" are those of float32.
    return ("bits a weight", "32", f"{average_bits:.2f}", f"{average_bits / 32:.3f}")


def _latency_rows(change: Change) -> list[_Row]:
    if change.latency_s_before is UNSET or change.latency_s is UNSET:
        return []
    # These are measured together.
    assert change.speedup is not UNSET
    assert change.speedup_ci95 is not UNSET
    speedup = speedup_cell(change.speedup, change.speedup_ci95)
    return [("latency", time_text(change.latency_s_before), time_text(change.latency_s), speedup)]


def _accuracy_rows(change: Change) -> list[_Row]:
    """Return both accuracies and their difference in points of percent, with its interval."""
    before, after = change.accuracy_before, change.accuracy
    if before is UNSET or after is UNSET:
        return []
    points = points_text(after - before)
    if change.difference_ci95 is not UNSET and change.mcnemar_p is not UNSET:
        low, high = change.difference_ci95
        p_value = p_value_text(change.mcnemar_p)
        points += f"\n{100 * low:+.1f} to {100 * high:+.1f}, McNemar p {p_value}"
    return [("accuracy", percent_text(before), percent_text(after), points)]


def _agreement_row(fraction: float) -> _Row:
    return ("same prediction", "", percent_text(fraction), "")


def _unlabeled_rows(found: UnlabeledChange) -> list[_Row]:
    """Return what can be compared on images without labels, where no accuracy is known."""
    before, after = percent_text(found.commonest_share_before), percent_text(found.commonest_share)
    return [
        ("accuracy", "", "not measured", ""),
        _agreement_row(found.top1_agreement),
        ("commonest class", before, after, ""),
    ]


def layout_bits(quant: QuantSpec) -> TextTable:
    """Lay out for each layer how many of its channels have how many bits.

    Where activations have fewer than 8, a last row counts the layers by the bits of theirs.
    """
    layers: dict[str, Sequence[int]] = {}
    for name, weight in quant.weights.items():
        layers[name] = weight.bits
    activations = list(quant.activations.values())
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
