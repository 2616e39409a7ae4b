"""Options of estimating Hessian traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fertool.config.option import check, option

TraceMethod = Literal["exact", "probe", "hutchinson", "hutchinson-masked"]


@dataclass(frozen=True)
class TraceConfig:
    """How to estimate traces; raises UsageError for values out of bounds.

    A round has `trace_images` images and, unless exact, `probes` probes of each. There is one round
    or, with a `target_error`, as many as `Sensitivity.relative_error` needs to fall to it, at most
    `max_rounds`.
    """

    method: TraceMethod = option(
        "exact",
        "exact: one backward pass per class; probe: one per random combination. hutchinson: of the "
        "cross-entropy, by products with random vectors, noisy and maybe negative; "
        "hutchinson-masked: with one product for every channel and probe, thousands of times "
        "slower.",
    )
    # A standard error needs two images, or two probes.
    trace_images: int = option(64, "Training images, balanced over the classes.", minimum=2)
    probes: int = option(10, "Random vectors of the methods other than exact.", minimum=2)
    target_error: float | None = option(
        None,
        "Take more images (exact) or probes until the standard error of the median channel, as a "
        "fraction of its trace, is as small as this, for example 0.05.",
        above=0,
    )
    max_rounds: int = option(
        16,
        "How many times ``trace_images`` or ``probes`` may be taken for ``target_error``.",
        minimum=1,
    )
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        check(self)

    @property
    def rounds(self) -> int:
        """The number of rounds that there may be."""
        return 1 if self.target_error is None else self.max_rounds

    @property
    def max_images(self) -> int:
        """The number of images that all rounds can use."""
        if self.method != "exact":
            return self.trace_images
        return self.trace_images * self.rounds
