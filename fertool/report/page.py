"""The page of `fertool report`, as HTML or as Markdown.

A verdict and headline figures come first, then what was measured, then a card for each model. No
figure stands in two tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from msgspec import UNSET

from fertool.report import (
    benchmark_tables,
    evaluation_tables,
    html_writer,
    layer_sections,
    markdown_writer,
    model_tables,
    sweep_tables,
)
from fertool.report.board_text import board_lines
from fertool.report.mistakes import mistake_section
from fertool.report.page_writer import PageWriter, section
from fertool.report.plots import (
    corruption_curves,
    sweep_accuracy,
    tradeoff,
    training_curves,
)
from fertool.report.plots.drawing import SVG
from fertool.report.result_files import ReportData
from fertool.report.text_table import Card, Section
from fertool.report.units import short_file_names, short_names
from fertool.report.verdict import find_pair, headline_figures, verdict_text
from fertool.results import BenchResult, Epoch, Evaluation, FileResult, ModelSummary

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
_NO_DECISIONS = "Not for decisions about people: hiring, policing, insurance, credit, health."
EXCLUDED = f"{PROHIBITED} {_NO_DECISIONS}"
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
    "Latency: one batch from pixels to logits, the passes of the files interleaved. Memory: the"
    " peak of a whole process with interpreter, runtime library, weights and work space."
)
# Of more classes, a matrix with a number in each cell is too large a picture.
_MAX_CONFUSION_CLASSES = 60
# Of more files, nobody would look at them one by one.
_MAX_MATRICES = 30
# Of more files, nobody could tell the lines of a panel apart.
_MAX_CURVES = 7
# Of more files, nobody could tell the points and names of a figure apart.
_MAX_POINTS = 60


def render_page(found: ReportData, *, as_markdown: bool = False) -> str:
    """Return one document, HTML or Markdown, about models and the results of commands.

    The same results give the same text; Markdown leaves out the pictures. Raises FertoolError when
    figures are needed but Matplotlib is missing.
    """
    writer: PageWriter = markdown_writer if as_markdown else html_writer
    makers = (
        _models,
        _benchmarks,
        _evaluations,
        _corruptions,
        _mistakes,
        _trainings,
        _sweeps,
        layer_sections.pruned_channels,
        layer_sections.layer_bits,
        layer_sections.sensitivities,
        _model_cards,
        _uses,
    )
    sections = []
    for make in makers:
        for made in make(found, writer):
            # Markdown has no pictures, and some sections have nothing else.
            if made.parts:
                sections.append(made)
    return writer.page("Facial-expression models", _head(found, writer), sections)


def _head(found: ReportData, writer: PageWriter) -> list[str]:
    """Return what stands above the sections: the verdict and the figures behind it."""
    parts = []
    pair = find_pair(found)
    if pair is not None:
        parts.append(writer.verdict(verdict_text(pair)))
        figures = []
        for figure in headline_figures(pair):
            figures.append(Card(figure.name, figure.after, f"before {figure.before}"))
        if figures:
            parts.append(writer.cards(figures))
    parts.append(writer.paragraph(PROHIBITED, "notice"))
    return [part for part in parts if part]


def _models(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    if not found.models:
        return
    # Figures of the same network on the same images stand in the section about accuracy.
    has_accuracy = not all(_is_evaluated(model, found.evaluations) for model in found.models)
    yield section(
        "Models",
        writer.table(model_tables.layout_models(found.models, with_accuracy=has_accuracy)),
        writer.paragraph("MACs: multiply-accumulates of one image.", "quiet"),
    )


def _is_evaluated(model: ModelSummary, evaluations: Sequence[Evaluation]) -> bool:
    """Return whether an evaluation repeats the figure of a model's header."""
    metrics = model.metrics
    if metrics is None:
        return True
    for entry in evaluations:
        same_images = (entry.split, entry.n) == (metrics.split, metrics.n)
        if same_images and entry.digest == model.digest and entry.tta == "none":
            return True
    return False


def _benchmarks(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    for report in found.benchmarks:
        omitted = _shown_elsewhere(report, found)
        caption = benchmark_tables.benchmark_caption(report)
        parts = [
            writer.table(benchmark_tables.layout_benchmark(report, omitted)),
            writer.paragraph(f"{caption}. {_BENCHMARK_NOTE}", "quiet"),
        ]
        for line in board_lines(report):
            parts.append(writer.paragraph(line, "quiet"))
        starts = benchmark_tables.layout_starts(report)
        if starts is not None:
            parts.append(writer.table(starts))
        if report.against is not None:
            parts.append(writer.heading(benchmark_tables.regression_caption(report.against)))
            regression = benchmark_tables.layout_regression(report, report.against)
            parts.append(writer.table(regression))
        for entry in report.results:
            if entry.operators:
                parts.append(writer.heading(benchmark_tables.operators_caption(entry)))
                parts.append(writer.table(benchmark_tables.layout_operators(entry)))
        for line in benchmark_tables.bench_warnings(report):
            parts.append(writer.paragraph(line, "notice"))
        # A picture that has latencies side by side compares them.
        measured = []
        for entry in report.comparable_with_first():
            if entry.accuracy is not None:
                measured.append(entry)
        if 0 < len(measured) <= _MAX_POINTS:
            parts += _tradeoff_pictures(measured, writer)
        yield section("Speed, memory and size", *parts)


def _shown_elsewhere(report: BenchResult, found: ReportData) -> frozenset[benchmark_tables.Column]:
    """Return the columns of a benchmark whose figures other tables of the page have."""
    sizes, counts = set(), set()
    for model in found.models:
        sizes.add((model.digest, model.size_bytes))
        counts.add((model.digest, model.params, model.macs))
    evaluated = {(entry.digest, entry.split, entry.n) for entry in found.evaluations}

    shown: set[benchmark_tables.Column] = set()
    if all((entry.digest, entry.size_bytes) in sizes for entry in report.results):
        shown.add("size")
    if all((entry.digest, entry.params, entry.macs) in counts for entry in report.results):
        shown.add("counts")
    if all((entry.digest, entry.split, entry.n) in evaluated for entry in report.results):
        shown.add("accuracy")
    return frozenset(shown)


def _tradeoff_pictures(measured: Sequence[FileResult], writer: PageWriter) -> Iterator[str]:
    caption = "Accuracy with 95 % interval against"
    draw = partial(tradeoff.plot_size_against_accuracy, measured, SVG)
    yield writer.picture(draw, f"{caption} file size")

    bars = "horizontal bars reach from the 10th to the 90th percentile"
    draw = partial(tradeoff.plot_latency_against_accuracy, measured, SVG)
    yield writer.picture(draw, f"{caption} latency; {bars}")


def _evaluations(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    parts = []
    if found.evaluations:
        parts.append(writer.table(evaluation_tables.layout_evaluations(found.evaluations)))
    for comparisons in found.comparisons:
        name = short_names([comparisons[0].baseline])[comparisons[0].baseline]
        parts.append(writer.heading(f"Accuracy less that of {name}, on the same images"))
        parts.append(writer.table(evaluation_tables.layout_comparisons(comparisons)))
    names = short_file_names(found.evaluations)
    for index, entry in enumerate(found.evaluations):
        parts.append(writer.heading(names[entry.file]))
        classes = [writer.table(evaluation_tables.layout_classes(entry))]
        if index < _MAX_MATRICES and len(entry.per_class) <= _MAX_CONFUSION_CLASSES:
            axes = "true class by row, predicted class by column, in %"
            caption = f"Confusion matrix of {names[entry.file]}: {axes}"
            classes.append(writer.matrix(evaluation_tables.layout_confusion(entry), caption))
        parts.append(writer.beside(*classes))
    if parts:
        yield section("Accuracy", *parts)


def _corruptions(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    corrupted = [entry for entry in found.evaluations if entry.corruptions is not UNSET]
    if not corrupted:
        return
    names = short_file_names(found.evaluations)
    parts = [writer.table(evaluation_tables.layout_relative_means(corrupted))]
    if len(corrupted) <= _MAX_CURVES:
        draw = partial(corruption_curves.plot_corruptions, corrupted, SVG)
        parts.append(writer.picture(draw, "Accuracy by corruption and strength; dashed: clean"))
    for entry in corrupted:
        assert entry.corruptions is not UNSET
        table = writer.table(evaluation_tables.layout_corruptions(entry.corruptions))
        caption = evaluation_tables.corruption_caption(entry)
        parts.append(writer.folded(f"{names[entry.file]}: {caption}", table))
    yield section("Accuracy under corruptions", *parts)


def _mistakes(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    return mistake_section(found.mistakes, writer)


def _trainings(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    if not found.histories:
        return
    curves: dict[str, list[Epoch]] = {}
    for name, history in found.histories.items():
        curves.update(training_curves.split_rounds(name, history))
    draw = partial(training_curves.plot_training_curves, curves, SVG)
    caption = f"Loss and validation accuracy: {', '.join(found.histories)}"
    yield section("Training", writer.picture(draw, caption))


def _sweeps(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    for sweep in found.sweeps:
        draw = partial(sweep_accuracy.plot_sweep, sweep, SVG)
        parts = [writer.paragraph(sweep_tables.sweep_caption(sweep), "quiet")]
        if len(sweep.seeds) > 1:
            parts.append(writer.table(sweep_tables.layout_means(sweep)))
        parts.append(writer.picture(draw, f"Accuracy of the trainings for {sweep.file}"))
        parts.append(writer.table(sweep_tables.layout_trials(sweep)))
        yield section(f"Several trainings: {sweep.file}", *parts)


def _model_cards(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    names = short_file_names(found.models)
    for model in found.models:
        parts = [writer.facts(model_tables.card_facts(model))]
        if model.metrics and model.metrics.split == "val":
            parts.append(writer.paragraph(CHOSEN_ON_VAL, "quiet"))
        if model.provenance:
            steps = writer.table(model_tables.layout_history(model.provenance))
            # Long, and asked for seldom.
            parts.append(writer.folded("How it was made", steps))
        yield section(f"Model card: {names[str(model.file)]}", *parts)


def _uses(found: ReportData, writer: PageWriter) -> Iterator[Section]:
    if found.models:
        # What is prohibited stands at the top of the page.
        uses = [("intended use", INTENDED), ("excluded uses", _NO_DECISIONS), ("limits", LIMITS)]
        yield section("Use and limits", writer.facts(uses))
