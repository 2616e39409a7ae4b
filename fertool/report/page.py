"""The page of `fertool report`: models side by side, their figures, and a card for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fertool.report import figures, grids
from fertool.report.grids import Data
from fertool.report.html import facts, heading, page, paragraph, picture, table
from fertool.report.sources import Sources, read_sources
from fertool.report.units import short_names

PROHIBITED = (
    "Inferring the emotions of people at workplaces and in education institutions is prohibited in the European Union"
    " (Regulation (EU) 2024/1689, the AI Act, Article 5(1)(f)), except for medical or safety reasons."
)
INTENDED = (
    "Naming the expression that one cropped, roughly frontal face shows, on the device itself, where the people shown"
    " know and agree and a wrong answer does no harm; comparing methods of compression."
)
EXCLUDED = f"{PROHIBITED} Not for decisions about people: hiring, policing, insurance, credit, health."
LIMITS = (
    "A label says what annotators saw in a picture, not what a person felt. Labels of facial-expression data sets are"
    " noisy, their classes unequal in size, and accuracy differs between groups of people, which was not measured here."
)
CHOSEN_ON_VAL = (
    "The accuracy is that of the validation split, on which training chose its best epoch: faces that the training"
    " never saw do a little worse."
)


def render_page(files: Sequence[Path]) -> str:
    """Return one HTML document about model files and the JSON of bench, eval, training and hessian-sensitivity.

    The same files give the same text. Raises FertoolError for files that are none of these, and when figures are
    needed but Matplotlib is missing.
    """
    sources = read_sources(files)
    sections = (_overview, _benchmarks, _evaluations, _training, _widths, _sensitivities, _cards)
    return page("Facial-expression models", (part for section in sections for part in section(sources)))


def _overview(sources: Sources) -> Iterator[str]:
    yield paragraph(PROHIBITED, "notice")
    if sources.models:
        yield heading("Models")
        yield table(grids.model_grid(sources.models))
        yield paragraph("MACs: multiply-accumulates of one image. CI: confidence interval.", "quiet")


def _benchmarks(sources: Sources) -> Iterator[str]:
    for report in sources.benchmarks:
        yield heading("Speed, memory and size")
        yield table(grids.bench_grid(report))
        yield paragraph(
            f"{grids.bench_caption(report)}. Latency: one batch from pixels to logits, the files taking turns. Memory:"
            " the peak of a whole process with interpreter, runtime library, weights and work space.",
            "quiet",
        )
        yield from (paragraph(line, "notice") for line in grids.bench_warnings(report))
        measured = [entry for entry in report["results"] if entry["accuracy"] is not None]
        if measured:
            caption = "Accuracy with 95 % interval against"
            yield picture(figures.size_against_accuracy(measured), f"{caption} file size", 720)
            spread = "latency; horizontal bars reach from the 10th to the 90th percentile"
            yield picture(figures.latency_against_accuracy(measured), f"{caption} {spread}", 720)


def _evaluations(sources: Sources) -> Iterator[str]:
    if sources.evaluations:
        yield heading("Accuracy")
    for entry in sources.evaluations:
        yield heading(entry["file"], 3)
        yield facts(grids.eval_facts(entry))
        yield table(grids.class_grid(entry))
        yield picture(figures.confusion_matrix(entry), f"Confusion matrix of {entry['file']}", 620)
    for comparisons in sources.comparisons:
        yield heading(f"Accuracy less that of {comparisons[0]['baseline']}, on the same images", 3)
        yield table(grids.comparison_grid(comparisons))


def _training(sources: Sources) -> Iterator[str]:
    if sources.histories:
        yield heading("Training")
        parts = [figures.curves(name, history) for name, history in sources.histories.items()]
        lines = {name: line for part in parts for name, line in part.items()}
        yield picture(
            figures.training_curves(lines), f"Loss and validation accuracy: {', '.join(sources.histories)}", 960
        )
    for sweep in sources.sweeps:
        yield heading(f"Several trainings: {sweep['file']}")
        if len(sweep["seeds"]) > 1:
            yield table(grids.points_grid(sweep))
        yield table(grids.sweep_grid(sweep))
        yield paragraph(grids.sweep_caption(sweep), "quiet")
        yield picture(figures.sweep(sweep), f"Accuracy of the trainings for {sweep['file']}", 720)


def _widths(sources: Sources) -> Iterator[str]:
    """A figure for each model that is narrower than an earlier one of the same architecture."""
    names = short_names([model["file"] for model in sources.models])
    for index, model in enumerate(sources.models):
        earlier = next((other for other in sources.models[:index] if _is_narrower(model, other)), None)
        if earlier:
            after, before = names[model["file"]], names[earlier["file"]]
            groups = [
                (name, width, model["widths"][name])
                for name, width in sorted(earlier["widths"].items(), key=_by_number)
            ]
            yield heading(f"Channels of {after}")
            yield picture(figures.width_bars(groups), f"Channels of {before} (before) and {after} (after)", 720)


def _by_number(group: tuple[str, int]) -> list[int | str]:
    """Sort key that puts "features.2" before "features.10", as the network has them."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", group[0])]


def _is_narrower(model: Data, other: Data) -> bool:
    ours, theirs = model["widths"], other["widths"]
    same = (model["arch"], model["arch_args"], set(ours)) == (other["arch"], other["arch_args"], set(theirs))
    return same and ours != theirs and all(ours[name] <= theirs[name] for name in ours)


def _sensitivities(sources: Sources) -> Iterator[str]:
    for name, data in sources.sensitivities.items():
        yield heading(f"Sensitivity: {name}")
        yield table(grids.sensitivity_grid(data))
        yield paragraph(grids.sensitivity_caption(data), "quiet")


def _cards(sources: Sources) -> Iterator[str]:
    names = short_names([model["file"] for model in sources.models])
    for model in sources.models:
        yield heading(f"Model card: {names[model['file']]}")
        use = [("intended use", INTENDED), ("excluded uses", EXCLUDED), ("limits", LIMITS)]
        yield facts([*use, *grids.model_facts(model)])
        if model["metrics"] and model["metrics"]["split"] == "val":
            yield paragraph(CHOSEN_ON_VAL, "quiet")
        if model["provenance"]:
            yield heading("How it was made", 3)
            yield table(grids.history_grid(model["provenance"]))
