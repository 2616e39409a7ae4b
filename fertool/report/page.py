"""The page of `fertool report`, as HTML or as Markdown.

It shows models side by side, what was measured, and a card for each model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from fertool.report import (
    benchmark_tables,
    change_tables,
    evaluation_tables,
    html_writer,
    markdown_writer,
    model_tables,
    sensitivity_tables,
    sweep_tables,
)
from fertool.report.plots import (
    confusion_matrix,
    layer_bars,
    sweep_accuracy,
    trace_strips,
    tradeoff,
    training_curves,
)
from fertool.report.result_files import ReportData, read_result_files
from fertool.report.text_table import Fact, TextTable
from fertool.report.units import layer_order, short_file_names
from fertool.results import Epoch, FileResult, ModelSummary
from fertool.spec import QuantSpec

PROHIBITED = (
    "Inferring the emotions of people at workplaces and in education institutions is prohibited in"
    " the European Union (Regulation (EU) 2024/1689, the AI Act, Article 5(1)(f)), except for"
    " medical or safety reasons."
)
INTENDED = (
    "Naming the expression that one cropped, roughly frontal face shows, on the device itself,"
    " where the people shown know and agree and a wrong answer does no harm; comparing methods of"
    " compression."
)
EXCLUDED = (
    f"{PROHIBITED} Not for decisions about people: hiring, policing, insurance, credit, health."
)
LIMITS = (
    "A label says what annotators saw in a picture, not what a person felt. Labels of"
    " facial-expression data sets are noisy, their classes unequal in size, and accuracy differs"
    " between groups of people, which was not measured here."
)
CHOSEN_ON_VAL = (
    "The accuracy is that of the validation split, on which training chose its best epoch: faces"
    " that the training never saw do a little worse."
)

_BENCHMARK_NOTE = (
    "Latency: one batch from pixels to logits, the files taking turns. Memory: the peak of a whole"
    " process with interpreter, runtime library, weights and work space."
)
# Of more classes, a matrix with a number in each cell is too large a picture.
_MAX_CONFUSION_CLASSES = 60
# Each takes a third of a second to draw.
_MAX_MATRICES = 30
# Of more files, nobody could tell the points and names of a figure apart.
_MAX_POINTS = 60
_MAX_BIT_BARS = 300


class PageWriter(Protocol):
    """Writes the pieces of a page, each as a text; see `fertool.report.html_writer`."""

    def page(self, title: str, parts: Iterable[str]) -> str:
        """Return a whole document."""

    def heading(self, text: str, level: int = 2) -> str:
        """Return a heading of level 2 or 3."""

    def paragraph(self, text: str, kind: str = "") -> str:
        """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""

    def table(self, content: TextTable) -> str:
        """Return a table."""

    def facts(self, pairs: Iterable[Fact]) -> str:
        """Return names and values."""

    def picture(self, draw: Callable[[], bytes], caption: str, width: int) -> str:
        """Return the PNG that `draw` makes, `width` CSS pixels wide.

        Nothing where the document has no room for it.
        """


def render_page(files: Sequence[Path], *, as_markdown: bool = False) -> str:
    """Return one document, HTML or Markdown, about model files and the JSON of commands.

    The same files give the same text; Markdown leaves out the pictures. Raises FertoolError for
    files of other kinds, and when figures are needed but Matplotlib is missing.
    """
    # A file that is named twice is shown once.
    found = read_result_files(list(dict.fromkeys(files)))
    writer: PageWriter = markdown_writer if as_markdown else html_writer
    sections = (
        _overview,
        _benchmarks,
        _evaluations,
        _trainings,
        _sweeps,
        _pruned_channels,
        _bits,
        _sensitivities,
        _model_cards,
    )
    parts = []
    for section in sections:
        for part in section(found, writer):
            # Markdown has no pictures.
            if part:
                parts.append(part)
    return writer.page("Facial-expression models", parts)


def _overview(found: ReportData, writer: PageWriter) -> Iterator[str]:
    yield writer.paragraph(PROHIBITED, "notice")
    if found.models:
        yield writer.heading("Models")
        yield writer.table(model_tables.layout_models(found.models))
        text = "MACs: multiply-accumulates of one image. CI: confidence interval."
        yield writer.paragraph(text, "quiet")


def _benchmarks(found: ReportData, writer: PageWriter) -> Iterator[str]:
    for report in found.benchmarks:
        yield writer.heading("Speed, memory and size")
        yield writer.table(benchmark_tables.layout_benchmark(report))
        caption = benchmark_tables.benchmark_caption(report)
        yield writer.paragraph(f"{caption}. {_BENCHMARK_NOTE}", "quiet")
        for line in benchmark_tables.bench_warnings(report):
            yield writer.paragraph(line, "notice")
        measured = []
        for entry in report.results:
            if entry.accuracy is not None:
                measured.append(entry)
        if 0 < len(measured) <= _MAX_POINTS:
            yield from _tradeoff_pictures(measured, writer)


def _tradeoff_pictures(measured: Sequence[FileResult], writer: PageWriter) -> Iterator[str]:
    caption = "Accuracy with 95 % interval against"
    draw = partial(tradeoff.plot_size_against_accuracy, measured)
    yield writer.picture(draw, f"{caption} file size", width=720)

    bars = "horizontal bars reach from the 10th to the 90th percentile"
    draw = partial(tradeoff.plot_latency_against_accuracy, measured)
    yield writer.picture(draw, f"{caption} latency; {bars}", width=720)


def _evaluations(found: ReportData, writer: PageWriter) -> Iterator[str]:
    if found.evaluations:
        yield writer.heading("Accuracy")
    for index, entry in enumerate(found.evaluations):
        yield writer.heading(entry.file, 3)
        yield writer.facts(evaluation_tables.evaluation_facts(entry))
        yield writer.table(evaluation_tables.layout_classes(entry))
        if index < _MAX_MATRICES and len(entry.per_class) <= _MAX_CONFUSION_CLASSES:
            draw = partial(confusion_matrix.plot_confusion_matrix, entry)
            yield writer.picture(draw, f"Confusion matrix of {entry.file}", width=620)
    for comparisons in found.comparisons:
        baseline = comparisons[0].baseline
        yield writer.heading(f"Accuracy less that of {baseline}, on the same images", 3)
        yield writer.table(evaluation_tables.layout_comparisons(comparisons))


def _trainings(found: ReportData, writer: PageWriter) -> Iterator[str]:
    if not found.histories:
        return
    yield writer.heading("Training")
    curves: dict[str, list[Epoch]] = {}
    for name, history in found.histories.items():
        curves.update(training_curves.split_rounds(name, history))
    draw = partial(training_curves.plot_training_curves, curves)
    caption = f"Loss and validation accuracy: {', '.join(found.histories)}"
    yield writer.picture(draw, caption, width=960)


def _sweeps(found: ReportData, writer: PageWriter) -> Iterator[str]:
    for sweep in found.sweeps:
        yield writer.heading(f"Several trainings: {sweep.file}")
        if len(sweep.seeds) > 1:
            yield writer.table(sweep_tables.layout_means(sweep))
        yield writer.table(sweep_tables.layout_trials(sweep))
        yield writer.paragraph(sweep_tables.sweep_caption(sweep), "quiet")
        draw = partial(sweep_accuracy.plot_sweep, sweep)
        yield writer.picture(draw, f"Accuracy of the trainings for {sweep.file}", width=720)


def _pruned_channels(found: ReportData, writer: PageWriter) -> Iterator[str]:
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
        yield writer.heading(f"Channels of {after}")
        draw = partial(layer_bars.plot_channels, groups)
        yield writer.picture(draw, f"Channels of {before} (before) and {after} (after)", width=720)


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


def _bits(found: ReportData, writer: PageWriter) -> Iterator[str]:
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
        yield writer.heading(f"Bits of {name}")
        yield writer.table(change_tables.layout_bits(quant))
        layers = sorted(bits_by_layer.items(), key=lambda layer: layer_order(layer[0]))
        draw = partial(layer_bars.plot_bits, layers[:_MAX_BIT_BARS])
        yield writer.picture(draw, f"Bits of {name} by layer", width=720)


def _bits_by_layer(quant: QuantSpec) -> dict[str, Sequence[int]]:
    bits: dict[str, Sequence[int]] = {}
    for name, rule in quant.weights.items():
        bits[name] = rule.bits
    return bits


def _sensitivities(found: ReportData, writer: PageWriter) -> Iterator[str]:
    for name, data in found.sensitivities.items():
        yield writer.heading(f"Sensitivity: {name}")
        yield writer.table(sensitivity_tables.layout_sensitivity(data))
        yield writer.paragraph(sensitivity_tables.sensitivity_caption(data), "quiet")
        draw = partial(trace_strips.plot_sensitivity, data)
        yield writer.picture(draw, "Hessian traces by layer and channel", width=900)


def _model_cards(found: ReportData, writer: PageWriter) -> Iterator[str]:
    names = short_file_names(found.models)
    use = [("intended use", INTENDED), ("excluded uses", EXCLUDED), ("limits", LIMITS)]
    for model in found.models:
        yield writer.heading(f"Model card: {names[str(model.file)]}")
        yield writer.facts([*use, *model_tables.model_facts(model)])
        if model.metrics and model.metrics.split == "val":
            yield writer.paragraph(CHOSEN_ON_VAL, "quiet")
        if model.provenance:
            yield writer.heading("How it was made", 3)
            yield writer.table(model_tables.layout_history(model.provenance))
