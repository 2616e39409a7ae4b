"""Options of reading a source, checked once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fertool.config.reading import VOTES_WEIGHT
from fertool.data.class_groups import ClassGroups
from fertool.data.ferplus import RULES
from fertool.data.labels import find_expression
from fertool.errors import UsageError, unknown_name
from fertool.registry import READERS


@dataclass(frozen=True)
class DataOptions:
    """How to read a source.

    `format`: the name of a reader, None to detect it. `ferplus`: fer2013new.csv, whose votes
    replace the labels by `ferplus_rule`. `votes`: the same file, mixed with the training images'
    labels by `votes_weight`. `size`, `channels`: what the images become; size None
    keeps theirs, and so does `keep_size` where they all have one. `groups`: classes to be, with
    those of the source that each consists of; None keeps the source's own. `classes`: a model's
    classes, in its order; None takes all. Images of no class are dropped. Where the source has no
    test split, `test_fraction` of the training images of each class are held out for it, then some
    for a missing validation split; `split_seed` chooses them. `skip_unreadable`: leave out image
    files that cannot be read. `seed`: of drawn faces only. Raises UsageError for a value out of its
    range.
    """

    format: str | None = None
    ferplus: Path | None = None
    ferplus_rule: str = "majority"
    votes: Path | None = None
    votes_weight: float = VOTES_WEIGHT
    size: int | None = None
    keep_size: bool = False
    channels: int = 1
    groups: ClassGroups | None = None
    classes: tuple[str, ...] | None = None
    test_fraction: float = 0.0
    split_seed: int = 0
    skip_unreadable: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.format is not None:
            READERS.require(self.format)
        if self.ferplus_rule not in RULES:
            raise unknown_name("``ferplus_rule``", self.ferplus_rule, RULES)
        if self.size is not None and self.size < 1:
            raise UsageError(
                f"image size {self.size} is not positive", "give the side of the images in pixels"
            )
        if self.channels not in (1, 3):
            raise UsageError(
                f"{self.channels} channels: images have 1 (gray) or 3 (RGB)", "use 1 or 3"
            )
        self._require_distinct_classes()

    def _require_distinct_classes(self) -> None:
        names = self.classes or ()
        expressions = [find_expression(name) for name in names]
        # By meaning: "happy" and "happiness" would share the images of one class.
        meanings = expressions if all(expressions) else names
        for name, count in Counter(meanings).items():
            if count > 1:
                raise UsageError(
                    f"two of the model's classes mean '{name}'",
                    "name each class once, in output order",
                )
