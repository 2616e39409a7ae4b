"""What `data info` found in a data set, as rows of text."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import UnsetType

from fertool.report.text_table import Fact, TextTable, numeric_headers
from fertool.report.units import channels_text
from fertool.results import DataInfo, Landmarks

_PROBLEMS = {
    "unreadable": "unreadable images",
    "duplicates_across_splits": "duplicates in several splits",
    "conflicting_labels": "duplicates under different labels",
    "duplicates": "duplicates in one split",
    "near_duplicates_across_splits": "near duplicates in several splits",
    "near_duplicates_with_other_labels": "near duplicates under different labels",
    "near_duplicates": "near duplicates in one split",
    "constant": "images of one gray level",
    "odd_size": "much smaller or not square",
    "few_training_images": "classes with few training images",
    "converted": "converted to upright 8-bit sRGB",
    "not_images": "files that are no images",
    "left_out": "images left out, by folder",
}
"""What each kind of problem is called."""
_OF_SEVERAL_IMAGES = tuple(kind for kind in _PROBLEMS if "duplicates" in kind or "labels" in kind)
_EXAMPLES = 3
"""Groups of a problem that the table names."""


def layout_class_counts(found: DataInfo) -> TextTable:
    """Lay out the images of each class in each split, with totals."""
    splits = found.counts
    rows = []
    for name in found.classes:
        counts = [of_split[name] for of_split in splits.values()]
        rows.append(_count_row(name, counts))

    totals = []
    for of_split in splits.values():
        totals.append(sum(of_split.values()))
    rows.append(_count_row("all", totals))
    return TextTable(("class", *numeric_headers(splits), ">all"), tuple(rows))


def _count_row(name: str, counts: list[int]) -> tuple[str, ...]:
    cells = [name]
    for count in (*counts, sum(counts)):
        cells.append(f"{count:,}")
    return tuple(cells)


def data_facts(found: DataInfo) -> list[Fact]:
    """Return what in a data set can mislead."""
    size = f"{found.image_size} x {found.image_size}"
    repeated = f"{found.copy_groups:,} occur more than once"
    facts = [
        ("source", f"{found.source} (digest {found.digest[:12]})"),
        ("images", f"{found.images:,} of {size}, {channels_text(found.channels)}"),
        ("distinct images", f"{found.distinct_images:,}; {repeated}"),
    ]
    for where, count in found.copies_across.items():
        facts.append((f"copies, {where}", f"{count:,}"))
    facts.append(("copies with different labels", f"{found.conflicting_groups:,} groups"))
    facts.append(("images of one gray level", f"{found.constant_images:,}"))
    if found.not_faces is not None:
        facts.append(("voted not a face (more than 5 of 10)", f"{found.not_faces:,}"))
    rule_counts = found.ferplus_rule_counts or {}
    for rule, kept in rule_counts.items():
        facts.append((f"kept by FER+ rule {rule}", _counts_text(kept)))
    if not isinstance(found.landmarks, UnsetType):
        facts += _landmark_facts(found.landmarks)
    return facts


def _landmark_facts(measured: Landmarks) -> list[Fact]:
    places = []
    for x, y in measured.template:
        places.append(f"{x:.3f},{y:.3f}")
    count = f"{measured.with_face:,} of {measured.images:,} images"
    return [("landmarks, fractions of the side", "  ".join(places)), ("measured on", count)]


def layout_problems(found: DataInfo) -> TextTable:
    """Lay out the problems of a data set, each with a few examples."""
    rows = []
    for problem in found.problems:
        is_of_several = problem.kind in _OF_SEVERAL_IMAGES
        shown = []
        for group in problem.groups[:_EXAMPLES]:
            shown.append((" = " if is_of_several else ": ").join(group))
        if problem.count > _EXAMPLES:
            shown.append("…")
        name = _PROBLEMS.get(problem.kind, problem.kind)
        rows.append((name, f"{problem.count:,}", "\n".join(shown)))
    return TextTable(("problem", ">count", "for example"), tuple(rows))


def _counts_text(counts: Mapping[str, int]) -> str:
    parts = []
    for name, count in counts.items():
        parts.append(f"{name} {count:,}")
    return ", ".join(parts)
