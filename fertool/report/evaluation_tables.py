"""What `eval` measured, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import UNSET

from fertool.config.evaluation import Tta
from fertool.report.model_tables import routing_text
from fertool.report.text_table import Fact, TextTable, numeric_headers
from fertool.report.units import (
    MISSING,
    accuracy_cell,
    accuracy_text,
    interval_text,
    p_value_text,
    percent_text,
    short_file_names,
    short_names,
)
from fertool.results import AccuracyComparison, Corruptions, Evaluation, Headline, RelativeMean

_TTA_NAMES: Mapping[Tta, str] = {
    "none": "single crop",
    "flip": "image and mirror image",
    "ten-crop": "ten crops",
}


def evaluation_facts(entry: Evaluation) -> list[Fact]:
    """Return the figures of one evaluated file over all classes."""
    facts = []
    if entry.single_crop:
        accuracy = accuracy_text(entry.single_crop, entry.split)
        facts.append((f"accuracy, {_TTA_NAMES['none']}", accuracy))
    facts.append((f"accuracy, {_TTA_NAMES[entry.tta]}", accuracy_text(entry, entry.split)))
    if entry.deduplicated:
        accuracy = accuracy_text(entry.deduplicated, entry.split)
        facts.append(("without copies of training images", accuracy))

    if entry.detection:
        accuracy = accuracy_text(entry.detection.with_face, entry.split)
        facts.append(("of photographs with a face", accuracy))
        facts.append(("photographs without a face", f"{entry.detection.without_face:,}, all wrong"))

    for profile in entry.profiles:
        share, accuracy = percent_text(profile.share), percent_text(profile.accuracy)
        facts.append((f"profile {profile.profile}", f"{accuracy} on {share} of the images"))
    if entry.routing:
        facts.append(("against random", routing_text(entry.routing)))
    if entry.corruptions is not UNSET:
        facts += _corruption_facts(entry.corruptions)
    balanced = percent_text(entry.balanced_accuracy)
    figures = f"{entry.macro_f1:.3f}, {balanced}, {entry.ece:.3f}"
    facts.append(("macro F1, balanced accuracy, ECE", figures))
    return facts


def layout_evaluations(entries: Sequence[Evaluation]) -> TextTable:
    """Lay out the figures over all classes of several evaluated files, a row for each.

    There are columns of what only some evaluations have where one has it.
    """
    names = short_file_names(entries)
    extras: dict[str, list[Headline | None]] = {}
    for title, figures in (
        ("single crop", [entry.single_crop for entry in entries]),
        ("without copies of training images", [entry.deduplicated for entry in entries]),
        ("photographs with a face", [_with_face(entry) for entry in entries]),
    ):
        if any(figures):
            extras[title] = figures

    rows = []
    for index, entry in enumerate(entries):
        on = f"{entry.split}, n = {entry.n:,}"
        if entry.tta != "none":
            on += f", {_TTA_NAMES[entry.tta]}"
        cells = [f"{names[entry.file]}\n{on}", accuracy_cell(entry)]
        for figures in extras.values():
            cells.append(_extra_cell(figures[index]))
        cells.append(f"{entry.macro_f1:.3f}")
        cells.append(percent_text(entry.balanced_accuracy))
        cells.append(f"{entry.ece:.3f}")
        rows.append(tuple(cells))
    headers = ["accuracy\n95 % CI", *extras, "macro F1", "balanced accuracy", "ECE"]
    return TextTable(("file\nimages", *numeric_headers(headers)), tuple(rows))


def _with_face(entry: Evaluation) -> Headline | None:
    return entry.detection.with_face if entry.detection else None


def _extra_cell(figures: Headline | None) -> str:
    if figures is None:
        return MISSING
    return f"{accuracy_cell(figures)}\nn = {figures.n:,}"


def layout_classes(entry: Evaluation) -> TextTable:
    """Lay out the figures of each class of one evaluated file."""
    rows = []
    for name, figures in entry.per_class.items():
        precision, recall = percent_text(figures.precision), percent_text(figures.recall)
        rows.append((name, f"{figures.n:,}", precision, recall, f"{figures.f1:.3f}"))
    return TextTable(("class", ">images", ">precision", ">recall", ">F1"), tuple(rows))


def layout_confusion(entry: Evaluation) -> TextTable:
    """Lay out a confusion matrix: a row for each true class, a column for each prediction.

    In percent of the images of the true class.
    """
    names = tuple(entry.per_class)
    rows = []
    for name, counts in zip(names, entry.confusion, strict=True):
        # A class may have no images.
        total = max(1, sum(counts))
        cells = [name]
        for count in counts:
            cells.append(f"{100 * count / total:.0f}")
        rows.append(tuple(cells))
    return TextTable(("", *numeric_headers(names)), tuple(rows))


def _corruption_facts(found: Corruptions) -> list[Fact]:
    facts: list[Fact] = []
    if found.mean:
        facts.append(("under corruptions, relative", _relative_text(found.mean)))
    if found.reference:
        facts.append(("the reference ones, relative", _relative_text(found.reference)))
    return facts


def _relative_text(mean: RelativeMean) -> str:
    interval = interval_text(mean.relative_accuracy_ci95, 1, 3)
    return f"{mean.relative_accuracy:.3f} [{interval}], {mean.levels} levels"


def layout_corruptions(found: Corruptions) -> TextTable:
    """Lay out the accuracy at every level of every corruption, against that of clean images."""
    rows = []
    for name, figures in found.by_name.items():
        # Its unit under its name, and both once for the five levels.
        titles = [name, f"  {figures.unit}"]
        for index, level in enumerate(figures.levels):
            relative = MISSING
            if level.relative_accuracy is not None:
                relative = f"{level.relative_accuracy:.3f}"
            row = (
                titles[index] if index < len(titles) else "",
                f"{level.strength:g}",
                percent_text(level.accuracy),
                relative,
                f"{100 * level.difference:+.1f}",
                interval_text(level.difference_ci95),
            )
            rows.append(row)
    headers = ("corruption", ">strength", ">accuracy", ">relative", ">points", ">95 % interval")
    return TextTable(headers, tuple(rows))


def layout_relative_means(entries: Sequence[Evaluation]) -> TextTable:
    """Lay out what files keep of their accuracy under corruptions, a row for each file."""
    names = short_file_names(entries)
    kinds: dict[str, None] = {}
    for entry in entries:
        if entry.corruptions is not UNSET:
            kinds.update(dict.fromkeys(entry.corruptions.by_name))
    rows = []
    for entry in entries:
        if entry.corruptions is UNSET:
            continue
        found = entry.corruptions
        cells = [names[entry.file]]
        means: list[RelativeMean | None] = [found.reference, found.mean]
        for kind in kinds:
            means.append(found.by_name[kind].mean if kind in found.by_name else None)
        for mean in means:
            cells.append(_mean_cell(mean))
        rows.append(tuple(cells))
    return TextTable(("file", *numeric_headers(["reference", "all", *kinds])), tuple(rows))


def _mean_cell(mean: RelativeMean | None) -> str:
    if mean is None:
        return MISSING
    interval = interval_text(mean.relative_accuracy_ci95, 1, 2)
    return f"{mean.relative_accuracy:.3f}\n{interval}"


def corruption_caption(entry: Evaluation) -> str:
    """Return what the table of corruptions is about."""
    return (
        f"under corruptions, {entry.split}, n = {entry.n:,}; points and paired intervals against "
        "the clean images"
    )


def layout_comparisons(comparisons: Sequence[AccuracyComparison]) -> TextTable:
    """Lay out paired comparisons: accuracy of each file less the baseline's."""
    # The baseline is in no row, but may share its name with a candidate in another folder.
    files = [comparisons[0].baseline]
    for entry in comparisons:
        files.append(entry.candidate)
    names = short_names(files)

    rows = []
    for entry in comparisons:
        row = (
            names[entry.candidate],
            f"{100 * entry.difference:+.2f}",
            interval_text(entry.difference_ci95, decimals=2),
            p_value_text(entry.mcnemar_p),
            f"{entry.n:,}",
        )
        rows.append(row)
    return TextTable(("file", ">points", ">95 % interval", ">McNemar p", ">images"), tuple(rows))
