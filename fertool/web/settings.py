"""What the page is told: the model's input, the detector's constants, and texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Template = Sequence[tuple[float, float]]
Fact = tuple[str, str]
"""Name and value."""
PixelType = Literal["uint8", "float32"]
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""So that no class name ends the element that the JSON stands in."""


@dataclass(frozen=True)
class ClassifierSettings:
    """How the model is run: crops `size` x `size` of `channels` planes in, logits out.

    A graph with uint8 input normalizes pixels itself; for float32 they are in `pixel_range`, less
    `mean`, divided by `std`. `batch` is the only batch size that the graph takes, None for any;
    `output` the name of its logits, None for the first output. Probabilities are the softmax of
    logits divided by `temperature`, except that a graph of another program `may_be_probabilities`
    already, and one that ends in a softmax is. `channels_last` is the order of the axes of its
    input. `template` has the places of the landmarks as fractions of the
    side; `most_samples` a side are averaged for a pixel.
    """

    classes: tuple[str, ...]
    channels: int
    size: int
    template: Template
    most_samples: int
    pixel_type: PixelType = "uint8"
    pixel_range: str = "0..255"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    batch: int | None = None
    output: str | None = None
    temperature: float = 1.0
    may_be_probabilities: bool = False
    channels_last: bool = False


@dataclass(frozen=True)
class DetectorSettings:
    """How faces are found; sizes in pixels. The names are those of `fertool.faces.constants`.

    `photo_size` and `video_size` are the long sides at which pictures and frames are looked at.
    """

    photo_size: int
    video_size: int
    min_score: float
    second_looks: tuple[int, ...]
    smallest_side: int
    largest_area: int
    pad_multiple: int
    strides: tuple[int, ...]
    largest_overlap: float


@dataclass(frozen=True)
class PageTexts:
    """What the page says about itself: its title, what it is for and not, facts of the model."""

    title: str
    intended: str
    excluded: str
    prohibited: str
    limits: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class PageSettings:
    """Everything about one page that is no file.

    Below `min_confidence` a face is "unsure"; `smooth_s` is the time over which the probabilities
    of a face in a video are averaged.
    """

    classifier: ClassifierSettings
    detector: DetectorSettings
    texts: PageTexts
    min_confidence: float
    smooth_s: float

    def to_json(self, *, service_worker: bool) -> str:
        """Return the JSON that main.js reads, safe inside of an HTML element."""
        values: dict[str, Any] = {
            "classifier": asdict(self.classifier),
            "detector": asdict(self.detector),
            "facts": self.texts.facts,
            "min_confidence": self.min_confidence,
            "smooth_s": self.smooth_s,
            "service_worker": service_worker,
        }
        return _escaped(values)


def _escaped(values: Mapping[str, Any]) -> str:
    # ASCII only: a lone half of a surrogate pair has no UTF-8.
    text = json.dumps(values, sort_keys=True, allow_nan=False, ensure_ascii=True)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text
