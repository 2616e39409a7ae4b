"""Sections of a page about the layers of networks: channels, bits and sensitivity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from fertool.report import change_tables, sensitivity_tables
from fertool.report.page_writer import PageWriter, section
from fertool.report.plots import layer_bars, trace_strips
from fertool.report.plots.drawing import SVG
from fertool.report.result_files import ReportData
from fertool.report.text_table import Section
from fertool.report.units import layer_order, short_file_names
from fertool.results import ModelSummary
from fertool.spec import QuantSpec

_MAX_BIT_BARS = 300


def pruned_channels(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    """Yield a figure for each model that has fewer channels than an earlier one of its kind."""
    names = short_file_names(found.models)
    for index, model in enumerate(found.models):
        earlier_models = found.models[:index]
        original = _find_original(model, earlier_models)
        # Quantization keeps the channels, whose picture is on the page already.
        if original is None or _has_same_channels(model, earlier_models):
            continue
        groups = []
        for name in sorted(original.channels, key=layer_order):
            groups.append((name, original.channels[name], model.channels[name]))
        before, after = names[str(original.file)], names[str(model.file)]
        draw = partial(layer_bars.plot_channels, groups, SVG)
        picture = writer.picture(draw, f"Channels of {before} (before) and {after} (after)")
        yield section(f"Channels of {after}", picture)


def _find_original(
    model: ModelSummary, earlier_models: Iterable[ModelSummary]
) -> ModelSummary | None:
    """Return the first of the earlier models that this one can have been pruned from."""
    for other in earlier_models:
        if _is_same_network(model, other) and _is_narrower(model, other):
            return other
    return None


def _has_same_channels(model: ModelSummary, earlier_models: Iterable[ModelSummary]) -> bool:
    same = filter(partial(_is_same_network, model), earlier_models)
    return any(other.channels == model.channels for other in same)


def _is_same_network(model: ModelSummary, other: ModelSummary) -> bool:
    """Return whether two models differ in nothing but their numbers of channels."""
    if model.arch != other.arch or model.arch_args != other.arch_args:
        return False
    return set(model.channels) == set(other.channels)


def _is_narrower(model: ModelSummary, other: ModelSummary) -> bool:
    channels, other_channels = model.channels, other.channels
    if channels == other_channels:
        return False
    return all(channels[name] <= other_channels[name] for name in channels)


def layer_bits(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    """Yield a table and a figure for each model whose weights have several numbers of bits."""
    names = short_file_names(found.models)
    for model in found.models:
        quant = model.quant
        if quant is None:
            continue
        bits_by_layer = _bits_by_layer(quant)
        distinct: set[int] = set()
        for bits in bits_by_layer.values():
            distinct.update(bits)
        # One number of bits for all layers is in the table of models.
        if len(distinct) <= 1:
            continue
        name = names[str(model.file)]
        layers = sorted(bits_by_layer.items(), key=lambda layer: layer_order(layer[0]))
        draw = partial(layer_bars.plot_bits, layers[:_MAX_BIT_BARS], SVG)
        picture = writer.picture(draw, f"Bits of {name} by layer")
        # The picture says the same: in its place where there is none.
        table = picture or writer.table(change_tables.layout_bits(quant))
        yield section(f"Bits of {name}", table)


def _bits_by_layer(quant: QuantSpec) -> dict[str, Sequence[int]]:
    bits: dict[str, Sequence[int]] = {}
    for name, rule in quant.weights.items():
        bits[name] = rule.bits
    return bits


def sensitivities(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    """Yield the Hessian traces of each file."""
    for name, data in found.sensitivities.items():
        draw = partial(trace_strips.plot_sensitivity, data, SVG)
        yield section(
            f"Sensitivity: {name}",
            writer.paragraph(sensitivity_tables.sensitivity_caption(data), "quiet"),
            writer.picture(draw, "Hessian traces by layer and channel"),
            writer.table(sensitivity_tables.layout_sensitivity(data)),
        )
