"""What `data info` counts in a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, UnsetType

from fertool.results.fields import LANDMARK_ORDER, Result, described
from fertool.strict_json import Count, Name, Positive, Text

_Counts = Mapping[Text, Count]
_Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Landmarks:
    """Where five landmarks of faces lie in the images, as fractions of the side."""

    images: Annotated[Count, described("images that were looked at")]
    with_face: Annotated[Count, described("of these, those in which a face was found")]
    template: Annotated[
        _Points,
        described(f"{LANDMARK_ORDER}: means as fractions of the side, made symmetric"),
    ]
    spread: Annotated[_Points, described("standard deviations of x and y")]


@dataclass(frozen=True)
class DataProblem:
    """One kind of problem; `count` are the images or groups of images that have it."""

    kind: Annotated[Name, described("the kind of problem")]
    count: Annotated[Count, described("images, or groups of duplicates, that have it")]
    groups: Annotated[
        tuple[tuple[Text, ...], ...],
        described(
            "their names, up to 1000 groups: the duplicates of one image, or one image, class, "
            "suffix or folder with a detail"
        ),
    ]


@dataclass(frozen=True)
class DataInfo(Result):
    """Counts over all images of a source, before any is dropped for its label."""

    source: Annotated[Text, described("the data set")]
    digest: Annotated[Text, described("digest of images and labels")]
    classes: Annotated[tuple[Name, ...], described("its classes")]
    image_size: Annotated[Positive, described("pixels of the side of an image")]
    channels: Annotated[Positive, described("1 for gray, 3 for RGB")]
    counts: Annotated[Mapping[Name, _Counts], described("images by split and class")]
    images: Annotated[Count, described("all images, exact duplicates included")]
    distinct_images: Annotated[Count, described("without exact duplicates")]
    copy_groups: Annotated[Count, described("images that occur more than once")]
    copies_across: Annotated[
        _Counts, described("by `val in train` and the like: duplicates across splits")
    ]
    conflicting_groups: Annotated[Count, described("duplicates with different labels")]
    constant_images: Annotated[Count, described("images of one gray level")]
    not_faces: Annotated[
        Count | None,
        described('images with more than five of ten "not a face" votes; null without FER+'),
    ]
    ferplus_rule_counts: Annotated[
        Mapping[Name, _Counts] | None,
        described("images that each rule for FER+ votes keeps of each split"),
    ]
    converted: Annotated[_Counts, described("images by conversion to upright 8-bit sRGB")]
    not_images: Annotated[_Counts, described("skipped files by suffix")]
    left_out: Annotated[_Counts, described("images that no split or class takes, by folder")]
    unreadable: Annotated[Mapping[Text, Text], described("the reason by file")]
    problems: Annotated[
        tuple[DataProblem, ...], described("all that a person should look at, the worst first")
    ]
    landmarks: Annotated[
        Landmarks | UnsetType, described("with ``landmarks``: where those of the faces lie")
    ] = UNSET
