"""The bundle that `export` writes for a board, and what its `run.py` prints there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from fertool.results.environment import Environment
from fertool.results.fields import FileSize, MemorySize, Result, Seconds, described
from fertool.results.imported import MOST_FILES, Agreement, BoardRun
from fertool.strict_json import Count, Fraction, Name, Positive, Text

_Point = tuple[Fraction, Fraction]
_Samples = Annotated[tuple[Seconds, ...], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class BundledFile:
    """A model file of a bundle; `images`, `logits` and `labels` are arrays in `cases.npz`."""

    file: Annotated[Text, described("name of the file in the bundle")]
    digest: Annotated[Text, described("digest of the model")]
    sha256: Annotated[Text, described("SHA-256 of the file's bytes")]
    quantized: Annotated[bool, described("whether its arithmetic is that of integers")]
    dynamic: Annotated[bool, described("whether its work depends on the image")]
    size_bytes: Annotated[FileSize, described("size of the file")]
    params: Annotated[Count | None, described("learned values")]
    macs: Annotated[Count | None, described("multiply-accumulates of one image")]
    layout: Annotated[Literal["NCHW", "NHWC"], described("order of the axes of its images")] = (
        "NCHW"
    )
    output: Annotated[
        Literal["logits", "probabilities"], described("what it returns for each class")
    ] = "logits"
    images: Annotated[Name, described("array of its test images, uint8, as the file takes them")]
    logits: Annotated[
        Name,
        described(
            "array of the logits of the machine that exported; of a file that returns "
            "probabilities their logarithms"
        ),
    ]
    labels: Annotated[Name | None, described("array of the labels, where they are known")]
    split: Annotated[Name | None, described("which images of ``data`` these are")]
    template: Annotated[
        tuple[_Point, ...],
        Meta(max_length=5),
        described("places of the landmarks in a face, as fractions of the side"),
    ]


@dataclass(frozen=True, kw_only=True)
class Bundle(Result):
    """The JSON file of a bundle, `bundle.json`."""

    board: Annotated[Literal[1], described("version of the format")]
    home: Annotated[Environment, described("the machine that exported")]
    files: Annotated[
        tuple[BundledFile, ...],
        Meta(min_length=1, max_length=MOST_FILES),
        described("the models, in the order given"),
    ]


@dataclass(frozen=True, kw_only=True)
class BundleResult(Bundle):
    """The JSON of `export` with ``bundle``."""

    folder: Annotated[Text, described("the folder that was written")]

    @property
    def file(self) -> str:
        """The folder, as other results name the file that was written."""
        return self.folder


@dataclass(frozen=True, kw_only=True)
class BoardFile(BundledFile):
    """What was measured of one file on a board."""

    load_s: Annotated[_Samples, described("opening the file, in processes of its own")]
    first_pass_s: Annotated[_Samples, described("first pass in each of these")]
    peak_rss_bytes: Annotated[MemorySize | None, described("most memory of these")]
    agreement: Annotated[Agreement, described("the comparison with the logits of the bundle")]
    samples_s: Annotated[_Samples, described("time of every timed pass")]


@dataclass(frozen=True, kw_only=True)
class BoardResult(BoardRun, Result):
    """The JSON that a bundle's `run.py` prints."""

    board: Annotated[Literal[1], described("version of the format")]
    home: Annotated[Environment, described("the machine that exported")]
    files: Annotated[
        tuple[BoardFile, ...],
        Meta(max_length=MOST_FILES),
        described("the files that ran, in the order of the bundle"),
    ]
    block: Annotated[Positive, described("timed passes of a file in a row")]

    def __post_init__(self) -> None:
        counts = {len(entry.samples_s) for entry in self.files}
        if len(counts) > 1 or any(count % self.block for count in counts):
            raise ValueError("`files` have not the same number of whole blocks of `samples_s`")
