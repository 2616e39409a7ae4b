"""Sums of traces and their squares over passes and images, and the file that keeps them."""

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


class TraceAccumulator:
    """Sums over images, float64 [2, channels of all layers], and over an unfinished batch's passes.

    `images` and `passes` count both; `probes` is 0 for exact traces.
    """

    # The names of the tensors in OUT.resume.
    _SUMS = ("total", "squares", "noise", "pass_total", "pass_squares")

    def __init__(self, channels: int, probes: int) -> None:
        self.images = 0
        self.passes = 0
        self.probes = probes
        self.total = torch.zeros(2, channels, dtype=torch.float64)
        self.squares = torch.zeros_like(self.total)
        self.noise = torch.zeros_like(self.total)
        # No rows until a batch has begun.
        self.pass_total = torch.zeros(2, 0, channels, dtype=torch.float64)
        self.pass_squares = self.pass_total

    def add(self, values: Tensor) -> None:
        """Add one pass, [2, rows, channels]."""
        values = values.cpu().double()
        if not self.passes:
            self.pass_total = torch.zeros_like(values)
            self.pass_squares = torch.zeros_like(values)
        if values.shape != self.pass_total.shape:
            raise FertoolError(
                "the state of a killed run is of passes over other images",
                "start anew: ``resume=False``",
            )
        self.pass_total += values
        self.pass_squares += values.square()
        self.passes += 1

    def close_batch(self, images: int) -> None:
        """Add a batch: a row's trace is the sum over its passes or, of probes, their mean."""
        traces = self.pass_total / max(self.probes, 1)
        self.total += traces.sum(1)
        self.squares += traces.square().sum(1)
        if self.probes:
            variances = _variance(self.pass_total, self.pass_squares, self.probes)
            self.noise += (variances / self.probes).sum(1)
        self.images += images
        self.passes = 0

    def traces(self) -> tuple[Tensor, Tensor]:
        """Return means over images and their standard errors, [2, channels] each.

        The errors are those of the probes at these very images or, for exact traces, those of
        drawing other images.
        """
        if self.probes:
            variance = self.noise / self.images**2
        else:
            variance = _variance(self.total, self.squares, self.images) / self.images
        return self.total / self.images, variance.sqrt()

    def save(self, path: Path, fingerprint: str) -> None:
        """Write all sums to OUT.resume, atomically."""
        counts = {"images": self.images, "passes": self.passes}
        save_state(path, fingerprint, counts, self._sums())

    def restore(self, path: Path, fingerprint: str, max_images: int) -> None:
        """Continue from the state of a killed run, if there is one, of at most `max_images`.

        Raises FertoolError for a state with other content.
        """
        state = load_state(path, fingerprint)
        if state is None:
            return
        header, sums = state
        with wrapping_state_errors(path):
            counts = parse_header(header, _Counts)
            if counts.images > max_images:
                raise WrongContentError(f"`images` is {counts.images}, more than {max_images}")
            self._require_fit(sums)
        # Only after all checks, so that a refused state changes nothing.
        self.images = counts.images
        self.passes = counts.passes
        for name, tensor in sums.items():
            setattr(self, name, tensor)

    def _sums(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self._SUMS}

    def _require_fit(self, sums: Mapping[str, Tensor]) -> None:
        """Raise WrongContentError unless these are finite sums of the same form as these here."""
        wanted = self._sums()
        # The rows of a pass are the images of its batch, of which a state may have any number.
        if "pass_total" in sums and sums["pass_total"].dim() >= 2:
            shape = (2, sums["pass_total"].shape[1], self.total.shape[1])
            wanted["pass_total"] = torch.empty(shape, dtype=torch.float64, device="meta")
            wanted["pass_squares"] = wanted["pass_total"]
        require_same_tensors("sums", sums, wanted)
        not_finite = [name for name, tensor in sums.items() if not tensor.isfinite().all()]
        if not_finite:
            raise WrongContentError(f"{listed(not_finite)}: NaN or infinity")


@dataclass(frozen=True)
class _Counts:
    """The header of a state: images added, and passes over the batch after them."""

    images: Count
    passes: Count


def _variance(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """Return the unbiased variance of `count` values with these sums of values and squares."""
    # The difference of two close numbers, which rounding may make negative.
    return ((squares - total.square() / count) / (count - 1)).clamp(min=0)
