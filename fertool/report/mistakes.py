"""The images that a compressed model and its baseline are wrong about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fertool.report.page_writer import PageWriter, section
from fertool.report.text_table import Section, Tile
from fertool.report.units import percent_text, short_names


@dataclass(frozen=True)
class Prediction:
    """What a model says of an image, and with which probability."""

    name: str
    probability: float

    def __str__(self) -> str:
        return f"{self.name} {percent_text(self.probability)}"


@dataclass(frozen=True)
class Mistake:
    """One image, PNG, with its label and the predictions of the baseline and of the candidate.

    `maps` are PNGs of where they look, by "baseline" or "candidate".
    """

    png: bytes
    label: str
    before: Prediction
    after: Prediction
    maps: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class MistakeGroup:
    """Images of one kind: how many there are, and the surest of them."""

    title: str
    count: int
    surest: tuple[Mistake, ...]


@dataclass(frozen=True)
class Mistakes:
    """What two models are wrong about; of one model both are the same.

    `mapped` names the models, in order, whose maps stand beside the images.
    """

    baseline: str
    candidate: str
    split: str
    n: int
    groups: tuple[MistakeGroup, ...]
    mapped: tuple[str, ...] = ()

    @property
    def is_paired(self) -> bool:
        """Whether there are two models."""
        return self.baseline != self.candidate


def mistake_section(found: Mistakes | None, writer: PageWriter) -> Iterator[Section]:
    """Yield the grids of images; nothing where no data was given or no image is to be shown."""
    if found is None:
        return
    names = short_names([*dict.fromkeys([found.baseline, found.candidate])])
    baseline, candidate = names[found.baseline], names[found.candidate]
    text = f"Images of {found.split} (n = {found.n:,}), those first of which a model is surest."
    if found.is_paired:
        text += f" Before: {baseline}. After: {candidate}."
    if found.mapped:
        looking = " and ".join(found.mapped)
        text += (
            f" Beside each image, in orange, where {looking} look for the class that each predicts"
            " (Grad-CAM, Selvaraju et al. 2017)."
        )
    parts = []
    for group in found.groups:
        if group.surest:
            parts.append(writer.heading(f"{group.title}: {group.count:,} of {found.n:,}"))
            parts.append(writer.tiles(_tiles(group.surest, is_paired=found.is_paired)))
    # Without pictures, as in Markdown, headings alone would say nothing.
    if any(parts[1::2]):
        yield section("Surest mistakes", writer.paragraph(text, "quiet"), *parts)


def _tiles(mistakes: Sequence[Mistake], *, is_paired: bool) -> list[Tile]:
    tiles = []
    for mistake in mistakes:
        lines = [f"labeled {mistake.label}"]
        if is_paired:
            lines += [f"before: {mistake.before}", f"after: {mistake.after}"]
        else:
            lines.append(f"predicted: {mistake.after}")
        described = f"Face {', '.join(lines)}"
        tiles.append(Tile((mistake.png, *mistake.maps), described, tuple(lines)))
    return tiles
