"""Hessian traces of the weights and of the activation of every output channel of all layers.

Work is done in rounds, batches and passes. A round takes the next images (method "exact") or the
same ones with new probes (the other methods), so that every round is an estimate of its own and all
of them together a better one. Random numbers come from the seed and the position in this order, so
that a killed run continues from the sums alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fertool.artifact.store import pack
from fertool.config.sensitivity import TraceConfig
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json, digest_text
from fertool.hessian.accumulator import TraceAccumulator
from fertool.hessian.gauss_newton import exact_directions, gradient_passes, probe_directions
from fertool.hessian.hutchinson import product_passes
from fertool.hessian.layer_runs import (
    Pass,
    WeightedLayer,
    channel_slices,
    count_channels,
    weighted_layers,
)
from fertool.inference import eval_mode
from fertool.results.sensitivity import HESSIAN_OF, LayerSensitivity, Sensitivity
from fertool.spec import affordable_batch

_SAVE_SECONDS = 10.0
"""Seconds between two writings of the state: what a killed run loses, besides one pass."""


def estimate_traces(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: TraceConfig = TraceConfig(),
    *,
    resume: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Return the traces of every convolution and linear layer of a float network, in its order.

    `images` are normalized inputs [N, C, S, S], at least two, of which `config.max_images` are
    used; `labels` [N] matter to the Hessian of the cross-entropy alone. The network runs in eval
    mode; its training flags and gradients are unchanged on return. With `resume` the state is kept
    in that file, and a killed run continues from it. The caller fills in the model's digest.

    Raises FertoolError for a network without such layers, with a layer used twice, without second
    derivatives where they are needed, or with traces that are not finite.
    """
    if len(images) < 2:
        raise UsageError(
            f"``trace_images={len(images)}``: at least 2 needed", "for example ``trace_images=32``"
        )
    layers = weighted_layers(module)
    if not layers:
        raise FertoolError(
            "the model has no float convolution or linear layer",
            "give the model before quantization",
        )
    measurement = _Measurement(module, layers, images[: config.max_images], labels, config)
    fingerprint = ""
    if resume:
        fingerprint = measurement.fingerprint()
        measurement.sums.restore(resume, fingerprint, measurement.max_images)
    saved = time.monotonic()
    with eval_mode(module), torch.enable_grad():
        while not measurement.is_finished():
            for done, total in measurement.measure_batch():
                if on_progress:
                    on_progress(done, total)
                if resume and time.monotonic() - saved >= _SAVE_SECONDS:
                    measurement.sums.save(resume, fingerprint)
                    saved = time.monotonic()
    return measurement.summary()


@dataclass
class _Measurement:
    """A measurement in progress; `sums` holds its results so far."""

    module: nn.Module
    layers: Mapping[str, WeightedLayer]
    images: Tensor
    labels: Tensor
    config: TraceConfig

    def __post_init__(self) -> None:
        self._exact = self.config.method == "exact"
        self.device = next(iter(self.layers.values())).weight.device
        self.round_size = min(self.config.trace_images, len(self.images))
        probes = 0 if self._exact else self.config.probes
        self.sums = TraceAccumulator(count_channels(self.layers), probes)

    @property
    def max_images(self) -> int:
        """The number of images that all rounds may count, those of repeated rounds again."""
        return len(self.images) if self._exact else self.config.rounds * self.round_size

    def fingerprint(self) -> str:
        """Return the digest of everything that decides how the run ends."""
        tensors = {f"module/{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors["images"] = self.images
        tensors["labels"] = self.labels
        header, _ = pack({}, tensors)
        # The device and PyTorch's version too: another one rounds differently, and the sums would
        # be those of no single run.
        parts = [asdict(self.config), header["digest"], self.device.type, torch.__version__]
        return digest_text(canonical_json(parts))

    def is_finished(self) -> bool:
        """Return whether a round has just ended and is the last one."""
        done = self.sums.images
        used_up = self._exact and done == len(self.images)
        at_round_end = done % self.round_size == 0 or used_up
        if done == 0 or self.sums.passes or not at_round_end:
            return False
        if used_up or done >= self.config.rounds * self.round_size:
            return True
        target = self.config.target_error
        return target is not None and self.summary().relative_error() <= target

    def measure_batch(self) -> Iterator[tuple[int, int]]:
        """Measure the next batch.

        Yields, after each pass, the passes x images done and those up to the end of the round.
        """
        first = self.sums.images
        in_round = first % self.round_size
        # The other methods take the same images in every round.
        round_start = first - in_round if self._exact else 0
        round_stop = min(round_start + self.round_size, len(self.images))
        start = round_start + in_round
        batch_size = affordable_batch(self.config.batch_size, self.images.shape[-1])
        stop = min(start + batch_size, round_stop)

        passes = self._passes(slice(start, stop), first)
        total = (first + round_stop - start) * len(passes)
        # A resumed run has the first passes of its batch already.
        for run_pass in passes[self.sums.passes :]:
            self.sums.add(run_pass())
            done = first * len(passes) + (stop - start) * self.sums.passes
            yield done, total
        self.sums.close_batch(stop - start)

    def _passes(self, batch: slice, first: int) -> list[Pass]:
        """Return the passes over a batch, whose first image is number `first` over all rounds."""
        config = self.config
        images = self.images[batch].detach().to(self.device)
        if HESSIAN_OF[config.method] == "cross-entropy":
            return product_passes(
                self.module,
                self.layers,
                images,
                self.labels[batch].to(self.device),
                probes=config.probes,
                masked=config.method == "hutchinson-masked",
                generator=lambda draw: _generator(config.seed, first, draw),
            )
        directions = exact_directions
        if config.method == "probe":
            directions = partial(
                probe_directions,
                probes=config.probes,
                generator=lambda index: _generator(config.seed, first + index),
            )
        return gradient_passes(self.module, self.layers, images, directions)

    def summary(self) -> Sensitivity:
        """Return the result after whole batches.

        Raises FertoolError when a trace is not finite.
        """
        traces, errors = self.sums.traces()
        layers = []
        for name, columns in channel_slices(self.layers).items():
            # Squares, as those of large finite traces overflow first.
            if not self.sums.squares[:, columns].isfinite().all():
                raise FertoolError(
                    f"layer {name}: a trace is not finite",
                    "check the model's weights for infinite values",
                )
            weights, activations = traces[:, columns].tolist()
            weights_sem, activations_sem = errors[:, columns].tolist()
            layer = LayerSensitivity(
                name=name,
                weight_trace=tuple(weights),
                weight_trace_sem=tuple(weights_sem),
                weight_params=self.layers[name].weight[0].numel(),
                activation_trace=tuple(activations),
                activation_trace_sem=tuple(activations_sem),
            )
            layers.append(layer)
        if self._exact:
            samples, probes = self.sums.images, 0
        else:
            rounds = self.sums.images // self.round_size
            samples, probes = self.round_size, self.config.probes * rounds
        return Sensitivity(
            model_digest="",
            method=self.config.method,
            samples=samples,
            probes=probes,
            seed=self.config.seed,
            layers=tuple(layers),
            hessian=HESSIAN_OF[self.config.method],
        )


def _generator(*position: int) -> torch.Generator:
    """Return the generator of one position in the work: seed, image number and draw."""
    # Hashed, so that neighboring positions do not have correlated seeds.
    digest = hashlib.sha256(repr(position).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
