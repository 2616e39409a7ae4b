"""Sums of traces over passes and images, what their standard errors need, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fertool.artifact.resume_state import (
    load_state,
    parse_header,
    require_same_tensors,
    save_state,
    wrapping_state_errors,
)
from fertool.errors import FertoolError
from fertool.strict_json import Count, WrongContentError, listed


class Tally:
    """Sums over images, float64 [2, channels of all layers], and over the passes of a batch that is not finished.

    `images` and `passes` count both; `probes` is 0 for exact traces.
    """

    _NAMES = ("total", "squares", "noise", "pass_total", "pass_squares")

    def __init__(self, channels: int, probes: int) -> None:
        self.images, self.passes, self.probes = 0, 0, probes
        self.total = torch.zeros(2, channels, dtype=torch.float64)
        self.squares, self.noise = torch.zeros_like(self.total), torch.zeros_like(self.total)
        self.pass_total = self.pass_squares = torch.zeros(2, 0, channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Add one pass, [2, rows, channels]."""
        values = values.cpu().double()
        if not self.passes:
            self.pass_total, self.pass_squares = torch.zeros_like(values), torch.zeros_like(values)
        if values.shape != self.pass_total.shape:
            raise FertoolError(
                "the state of a killed run is of passes over other images",
                "start anew: --no-resume",
            )
        self.pass_total += values
        self.pass_squares += values.square()
        self.passes += 1

    def close(self, images: int) -> None:
        """Add the batch: a row's trace is the sum over its passes or, of probes, their mean."""
        traces = self.pass_total / max(self.probes, 1)
        self.total += traces.sum(1)
        self.squares += traces.square().sum(1)
        if self.probes:
            self.noise += (
                _variance(self.pass_total, self.pass_squares, self.probes) / self.probes
            ).sum(1)
        self.images, self.passes = self.images + images, 0

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return means over images and their standard errors, [2, channels] each."""
        # The mean's variance: of the probes' noise at these very images or, without it, of drawing other images.
        spread = _variance(self.total, self.squares, self.images) / self.images
        variance = self.noise / self.images**2 if self.probes else spread
        return self.total / self.images, variance.sqrt()

    def save(self, path: Path, fingerprint: str) -> None:
        """Write all of it to OUT.resume, atomically."""
        counts = {"images": self.images, "passes": self.passes}
        save_state(path, fingerprint, counts, {name: getattr(self, name) for name in self._NAMES})

    def restore(self, path: Path, fingerprint: str, most: int) -> None:
        """Take over the state of a killed run, if there is one, of at most `most` images.

        Raises FertoolError for a state with other content.
        """
        state = load_state(path, fingerprint)
        if state is None:
            return
        with wrapping_state_errors(path):
            counts = parse_header(state[0], _Counts)
            if counts.images > most:
                raise WrongContentError(f"`images` is {counts.images}, more than {most}")
            self._require_own(state[1])
        self.images, self.passes = counts.images, counts.passes
        for name, tensor in state[1].items():
            setattr(self, name, tensor)

    def _require_own(self, sums: Mapping[str, Tensor]) -> None:
        """Raise WrongContentError unless these are sums as this tally has them, with any number of rows of a pass."""
        wanted = {name: getattr(self, name) for name in self._NAMES}
        rows = sums["pass_total"].shape[1:2] if "pass_total" in sums else ()
        if len(rows) == 1:
            shape = (2, rows[0], self.total.shape[1])
            wanted["pass_total"] = wanted["pass_squares"] = torch.empty(
                shape, dtype=torch.float64, device="meta"
            )
        require_same_tensors("sums", sums, wanted)
        endless = [name for name, tensor in sums.items() if not tensor.isfinite().all()]
        if endless:
            raise WrongContentError(f"{listed(endless)}: NaN or infinity")


@dataclass(frozen=True)
class _Counts:
    """What the state of a killed run counts."""

    images: Count
    passes: Count


def _variance(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the unbiased variance of `count` values with sum `total` and sum of squares `squares`."""
    return ((squares - total.square() / count) / (count - 1)).clamp(min=0)
