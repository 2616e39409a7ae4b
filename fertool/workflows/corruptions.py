"""Evaluate a model under corruptions of the images, against the same images as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fertool.config.corruptions import CORRUPTIONS, REFERENCE
from fertool.results import CorruptionFigures, CorruptionLevel, Corruptions, RelativeMean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fertool.reporter import OnProgress

    Correct = NDArray[np.bool_]
    """For each image whether the prediction is right."""

Strength = tuple[str, float]
"""A corruption and the strength of one of its levels."""


def evaluate_corruptions(
    images: Tensor,
    clean: Correct,
    is_correct: Callable[[Tensor], Correct],
    names: tuple[str, ...],
    seed: int,
    on_progress: OnProgress,
) -> Corruptions:
    """Return the figures of a model under these corruptions of images uint8 [N, C, S, S].

    `clean` [N] says which of the images it names right as they are, `is_correct` says the same
    for changed ones. `on_progress` counts images.
    """
    from fertool.data.corruptions import corrupt

    strengths: list[Strength] = []
    for name in names:
        strengths += [(name, level) for level in CORRUPTIONS[name].levels]
    correct: dict[Strength, Correct] = {}
    for done, (name, level) in enumerate(strengths):
        correct[name, level] = is_correct(corrupt(images, name, level, seed))
        on_progress((done + 1) * len(clean), len(strengths) * len(clean))

    by_name: dict[str, CorruptionFigures] = {}
    for name in names:
        own = {key: found for key, found in correct.items() if key[0] == name}
        by_name[name] = CorruptionFigures(
            unit=CORRUPTIONS[name].strength,
            levels=tuple(_level(level, found, clean) for (_, level), found in own.items()),
            mean=_mean(own, clean),
        )
    reference = None
    if correct.keys() >= set(REFERENCE):
        reference = _mean({key: correct[key] for key in REFERENCE}, clean)
    return Corruptions(seed, by_name, _mean(correct, clean), reference)


def _level(strength: float, correct: Correct, clean: Correct) -> CorruptionLevel:
    from fertool.metrics import compare_paired, wilson_ci95

    right = int(correct.sum())
    accuracy = right / len(correct)
    pair = compare_paired(clean, correct)
    return CorruptionLevel(
        n=len(correct),
        accuracy=accuracy,
        accuracy_ci95=wilson_ci95(right, len(correct)),
        strength=float(strength),
        relative_accuracy=accuracy / float(clean.mean()) if clean.any() else None,
        difference=pair.difference,
        difference_ci95=pair.difference_ci95,
    )


def _mean(correct: Mapping[Strength, Correct], clean: Correct) -> RelativeMean | None:
    """Return the mean of the relative accuracies, None where no clean image is named right."""
    import numpy as np

    from fertool.metrics import ratio_with_ci95

    if not clean.any():
        return None
    # Image by image, so that the interval knows that all levels are of the same images.
    means = np.stack(list(correct.values())).mean(axis=0)
    ratio, interval = ratio_with_ci95(means, clean.astype(np.float64))
    return RelativeMean(len(correct), ratio, interval)
