"""Options of reading a data set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from fertool.config.option import check, option
from fertool.errors import UsageError
from fertool.registry import READERS

DATA = "Data"

VOTES_WEIGHT = 0.5
"""Of the votes against the label."""
_CLASSES_HINT = "for example ``classes=happy,sad,other=angry+fear``"


@dataclass(frozen=True)
class ReadConfig:
    """How a data set is read; raises UsageError for a value that is none of the choices."""

    format: str = option(
        "auto", "Layout of ``data``; auto detects it.", panel=DATA, registry=READERS, advanced=True
    )
    # Barsoum et al. 2016, arXiv 1608.01041: ten votes for each image of FER2013.
    ferplus: Path | None = option(
        None,
        "FER+ votes (fer2013new.csv) that replace the labels of a fer2013.csv.",
        panel=DATA,
    )
    ferplus_rule: Literal["majority", "soft", "cross-entropy"] = option(
        "majority", "How FER+ votes become labels.", panel=DATA, advanced=True
    )
    skip_unreadable: bool | None = option(
        None,
        "Leave out image files that cannot be read, which are named, instead of stopping.",
        panel=DATA,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def given_format(self) -> str | None:
        """The layout that is given, None where it is to be detected."""
        return None if self.format == "auto" else self.format


@dataclass(frozen=True)
class DataConfig(ReadConfig):
    """How a data set is read and divided for training.

    A model's lineage records these options; the later commands take them from there. Raises
    UsageError for a value out of bounds.
    """

    classes: str | None = option(
        None,
        "Classes in order, of the data set or merged: happy,sad,other=angry+fear. Images of others "
        "are not used.",
        panel=DATA,
        metavar="NAMES",
    )
    # The images are those of fer2013.csv, which ten raters labeled again: Barsoum et al. 2016.
    votes: Path | None = option(
        None,
        "FER+ votes (fer2013new.csv) that are mixed with the labels of the training images of a "
        "fer2013.csv, by the names of its classes; validation images keep their labels.",
        panel=DATA,
    )
    votes_weight: float | None = option(
        None,
        f"Weight of the votes against the label. Default: {VOTES_WEIGHT:g}.",
        panel=DATA,
        minimum=0,
        maximum=1,
    )
    split_seed: int | None = option(
        None,
        "Seed of the choice of images that are held out where a split is missing. Default: 0.",
        panel=DATA,
        minimum=0,
        maximum=2**31,
        advanced=True,
    )
    test_fraction: float | None = option(
        None,
        "Fraction of the training images of each class that is held out for test where there is no "
        "test split. Default: none.",
        panel=DATA,
        above=0,
        maximum=0.5,
        advanced=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None:
            parse_classes(self.classes)
        if self.votes is not None and self.ferplus is not None:
            raise UsageError(
                "``votes`` with ``ferplus``: both say what the votes are for",
                "``ferplus`` replaces the labels by votes, ``votes`` mixes the two: choose one",
            )
        if self.votes_weight is not None and self.votes is None:
            raise UsageError(
                f"``votes_weight={self.votes_weight:g}``: there are no votes",
                "name their file: ``votes=fer2013new.csv``",
            )

    @classmethod
    def of(cls, read: ReadConfig, recorded: dict[str, Any] | None = None) -> DataConfig:
        """Return the options of `read`, and those `recorded` of a model that it leaves open."""
        values = {each.name: getattr(read, each.name) for each in fields(read)}
        for name in _OF_TRAINING:
            if values.get(name) is None:
                values[name] = (recorded or {}).get(name)
        return cls(**values)


_OF_TRAINING = ("skip_unreadable", "classes", "split_seed", "test_fraction")


def parse_classes(text: str) -> dict[str, tuple[str, ...]]:
    """Return the classes of `a,b,c=d+e` in order, with the names that each consists of.

    Raises UsageError for an empty name, for one that occurs twice, and for a single class.
    """
    groups: dict[str, tuple[str, ...]] = {}
    used: set[str] = set()
    for item in text.split(","):
        target, equals, members_text = item.partition("=")
        target = target.strip()
        members = [target]
        if equals:
            members = [member.strip() for member in members_text.split("+")]
        if target in groups:
            raise UsageError(f"``classes={text}``: '{target}' twice", _CLASSES_HINT)
        for member in members:
            if not target or not member:
                raise UsageError(f"``classes={text}``: an empty name", _CLASSES_HINT)
            if member in used:
                raise UsageError(f"``classes={text}``: '{member}' twice", _CLASSES_HINT)
            used.add(member)
        groups[target] = tuple(members)
    if len(groups) < 2:
        raise UsageError(
            f"``classes={text}``: one class leaves nothing to tell apart", _CLASSES_HINT
        )
    return groups


def recorded_reading(lineage: Any) -> dict[str, Any]:
    """Return the options of `DataConfig` that the last training in a model's lineage recorded."""
    recorded: dict[str, Any] = {}
    for step in lineage:
        # The classes of an import name outputs, in any order, and merge nothing.
        if step.command == "import":
            continue
        for name in _OF_TRAINING:
            if name in step.options:
                recorded[name] = step.options[name]
    return recorded


def named_format(source: str) -> str | None:
    """Return the format that a source names itself, as `synth:COUNT` does; None for a path."""
    prefix = source.partition(":")[0]
    return READERS.having("prefix", prefix) if prefix else None
