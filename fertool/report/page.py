"""The page of `fertool report`: models side by side, their figures, and a card for each; as HTML or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from fertool.report import bars, changes, figures, grids, html, markdown, strips
from fertool.report.grids import Data, Fact, Grid
from fertool.report.sources import Sources, read_sources
from fertool.report.units import layer_order, short_names

PROHIBITED = (
    "Inferring the emotions of people at workplaces and in education institutions is prohibited in the European Union"
    " (Regulation (EU) 2024/1689, the AI Act, Article 5(1)(f)), except for medical or safety reasons."
)
INTENDED = (
    "Naming the expression that one cropped, roughly frontal face shows, on the device itself, where the people shown"
    " know and agree and a wrong answer does no harm; comparing methods of compression."
)
EXCLUDED = (
    f"{PROHIBITED} Not for decisions about people: hiring, policing, insurance, credit, health."
)
LIMITS = (
    "A label says what annotators saw in a picture, not what a person felt. Labels of facial-expression data sets are"
    " noisy, their classes unequal in size, and accuracy differs between groups of people, which was not measured here."
)
CHOSEN_ON_VAL = (
    "The accuracy is that of the validation split, on which training chose its best epoch: faces that the training"
    " never saw do a little worse."
)

_MOST_CONFUSION_CLASSES = 60
"""Of more, a matrix with a number in each field is too large a picture."""
_MOST_MATRICES = 30
"""Each takes a third of a second to draw."""
_MOST_POINTS = 60
"""Of more files, nobody could tell the points and names of a figure apart."""
_MOST_BIT_BARS = 300


class Pen(Protocol):
    """What writes the pieces of a page, each as a text; see `fertool.report.html`."""

    def page(self, title: str, parts: Iterable[str]) -> str:
        """Return a whole document."""

    def heading(self, text: str, level: int = 2) -> str:
        """Return a heading of level 2 or 3."""

    def paragraph(self, text: str, kind: str = "") -> str:
        """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""

    def table(self, grid: Grid) -> str:
        """Return a table."""

    def facts(self, pairs: Iterable[Fact]) -> str:
        """Return names and values."""

    def picture(self, draw: Callable[[], bytes], caption: str, width: int) -> str:
        """Return the PNG that `draw` makes, `width` CSS pixels wide, or nothing where there is no room for it."""


def render_page(files: Sequence[Path], *, as_markdown: bool = False) -> str:
    """Return one document, HTML or Markdown, about model files and the JSON of bench, eval, training and the like.

    The same files give the same text; Markdown leaves out the pictures. Raises FertoolError for files that are none
    of these, and when figures are needed but Matplotlib is missing.
    """
    # A file that is named twice is shown once.
    sources = read_sources(list(dict.fromkeys(files)))
    pen: Pen = markdown if as_markdown else html
    sections = (
        _overview,
        _benchmarks,
        _evaluations,
        _training,
        _widths,
        _bits,
        _sensitivities,
        _cards,
    )
    return pen.page(
        "Facial-expression models", (part for section in sections for part in section(sources, pen))
    )


def _overview(sources: Sources, pen: Pen) -> Iterator[str]:
    yield pen.paragraph(PROHIBITED, "notice")
    if sources.models:
        yield pen.heading("Models")
        yield pen.table(grids.model_grid(sources.models))
        yield pen.paragraph(
            "MACs: multiply-accumulates of one image. CI: confidence interval.", "quiet"
        )


def _benchmarks(sources: Sources, pen: Pen) -> Iterator[str]:
    for report in sources.benchmarks:
        yield pen.heading("Speed, memory and size")
        yield pen.table(grids.bench_grid(report))
        yield pen.paragraph(
            f"{grids.bench_caption(report)}. Latency: one batch from pixels to logits, the files taking turns. Memory:"
            " the peak of a whole process with interpreter, runtime library, weights and work space.",
            "quiet",
        )
        yield from (pen.paragraph(line, "notice") for line in grids.bench_warnings(report))
        measured = [entry for entry in report["results"] if entry["accuracy"] is not None]
        if 0 < len(measured) <= _MOST_POINTS:
            caption = "Accuracy with 95 % interval against"
            yield pen.picture(
                partial(figures.size_against_accuracy, measured), f"{caption} file size", 720
            )
            spread = "latency; horizontal bars reach from the 10th to the 90th percentile"
            yield pen.picture(
                partial(figures.latency_against_accuracy, measured), f"{caption} {spread}", 720
            )


def _evaluations(sources: Sources, pen: Pen) -> Iterator[str]:
    if sources.evaluations:
        yield pen.heading("Accuracy")
    for index, entry in enumerate(sources.evaluations):
        yield pen.heading(entry["file"], 3)
        yield pen.facts(grids.eval_facts(entry))
        yield pen.table(grids.class_grid(entry))
        if index < _MOST_MATRICES and len(entry["per_class"]) <= _MOST_CONFUSION_CLASSES:
            yield pen.picture(
                partial(figures.confusion_matrix, entry),
                f"Confusion matrix of {entry['file']}",
                620,
            )
    for comparisons in sources.comparisons:
        yield pen.heading(
            f"Accuracy less that of {comparisons[0]['baseline']}, on the same images", 3
        )
        yield pen.table(grids.comparison_grid(comparisons))


def _training(sources: Sources, pen: Pen) -> Iterator[str]:
    if sources.histories:
        yield pen.heading("Training")
        parts = [figures.curves(name, history) for name, history in sources.histories.items()]
        lines = {name: line for part in parts for name, line in part.items()}
        yield pen.picture(
            partial(figures.training_curves, lines),
            f"Loss and validation accuracy: {', '.join(sources.histories)}",
            960,
        )
    for sweep in sources.sweeps:
        yield pen.heading(f"Several trainings: {sweep['file']}")
        if len(sweep["seeds"]) > 1:
            yield pen.table(grids.points_grid(sweep))
        yield pen.table(grids.sweep_grid(sweep))
        yield pen.paragraph(grids.sweep_caption(sweep), "quiet")
        yield pen.picture(
            partial(figures.sweep, sweep), f"Accuracy of the trainings for {sweep['file']}", 720
        )


def _widths(sources: Sources, pen: Pen) -> Iterator[str]:
    """A figure for each model that is narrower than an earlier one of the same architecture."""
    names = short_names([model["file"] for model in sources.models])
    for index, model in enumerate(sources.models):
        before_it = sources.models[:index]
        earlier = next((other for other in before_it if _is_narrower(model, other)), None)
        # Quantisation keeps the widths, whose picture is there already.
        if earlier and not any(_has_widths_of(model, other) for other in before_it):
            after, before = names[model["file"]], names[earlier["file"]]
            groups = [
                (name, width, model["channels"][name])
                for name, width in sorted(
                    earlier["channels"].items(), key=lambda group: layer_order(group[0])
                )
            ]
            yield pen.heading(f"Channels of {after}")
            yield pen.picture(
                partial(bars.width_bars, groups),
                f"Channels of {before} (before) and {after} (after)",
                720,
            )


def _bits(sources: Sources, pen: Pen) -> Iterator[str]:
    """A table and a figure for each model whose weights have several widths."""
    names = short_names([model["file"] for model in sources.models])
    for model in sources.models:
        weights = model["quant"]["weights"] if model["quant"] else {}
        if len({width for rule in weights.values() for width in rule["bits"]}) > 1:
            yield pen.heading(f"Bits of {names[model['file']]}")
            yield pen.table(changes.bits_grid(model["quant"]))
            ordered = sorted(weights, key=layer_order)[:_MOST_BIT_BARS]
            layers = [(name, weights[name]["bits"]) for name in ordered]
            yield pen.picture(
                partial(bars.bit_bars, layers), f"Bits of {names[model['file']]} by layer", 720
            )


def _has_widths_of(model: Data, other: Data) -> bool:
    return _is_alike(model, other) and bool(model["channels"] == other["channels"])


def _is_alike(model: Data, other: Data) -> bool:
    keys = [(one["arch"], one["arch_args"], set(one["channels"])) for one in (model, other)]
    return keys[0] == keys[1]


def _is_narrower(model: Data, other: Data) -> bool:
    ours, theirs = model["channels"], other["channels"]
    return (
        _is_alike(model, other)
        and ours != theirs
        and all(ours[name] <= theirs[name] for name in ours)
    )


def _sensitivities(sources: Sources, pen: Pen) -> Iterator[str]:
    for name, data in sources.sensitivities.items():
        yield pen.heading(f"Sensitivity: {name}")
        yield pen.table(changes.sensitivity_grid(data))
        yield pen.paragraph(changes.sensitivity_caption(data), "quiet")
        yield pen.picture(
            partial(strips.sensitivity, data), "Hessian traces by layer and channel", 900
        )


def _cards(sources: Sources, pen: Pen) -> Iterator[str]:
    names = short_names([model["file"] for model in sources.models])
    for model in sources.models:
        yield pen.heading(f"Model card: {names[model['file']]}")
        use = [("intended use", INTENDED), ("excluded uses", EXCLUDED), ("limits", LIMITS)]
        yield pen.facts([*use, *grids.model_facts(model)])
        if model["metrics"] and model["metrics"]["split"] == "val":
            yield pen.paragraph(CHOSEN_ON_VAL, "quiet")
        if model["provenance"]:
            yield pen.heading("How it was made", 3)
            yield pen.table(grids.history_grid(model["provenance"]))
