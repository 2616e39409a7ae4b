"""One Hessian trace per output channel of every convolution and linear layer: of its weights and of its activation.

Work goes in rounds, batches and passes. A round takes the next images (method "exact") or the same ones with new probes
(the others), so that every round is an estimate of its own and all of them together a better one. Random numbers come
from the seed and the place in this order, so that a killed run needs the sums alone to go on.
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
from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.header_json import canonical_json, digest_text
from fertool.hessian.gauss_newton import exact_directions, gradient_passes, probe_directions
from fertool.hessian.hutchinson import product_passes
from fertool.hessian.layers import Layer, Pass, channel_slices, weighted_layers
from fertool.hessian.sensitivity import HESSIAN_OF, LayerSensitivity, Method, Sensitivity
from fertool.hessian.tally import Tally
from fertool.inference import eval_mode
from fertool.spec import affordable_batch

_SAVE_SECONDS = 10.0
"""Time between two writings of the state: what a killed run loses at most, a pass apart."""


@dataclass(frozen=True)
class TraceConfig:
    """What to measure; raises UsageError for what makes no sense.

    A round has `samples` images and, unless exact, `probes` probes of each. There is one, or with a `target_error` as
    many as make `Sensitivity.relative_error` as small, `max_rounds` at most.
    """

    method: Method = "exact"
    samples: int = 64
    probes: int = 10
    target_error: float | None = None
    max_rounds: int = 16
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.method not in HESSIAN_OF:
            raise unknown_name("--method", self.method, HESSIAN_OF)
        bounds = (("samples", 2), ("probes", 2), ("max_rounds", 1), ("batch_size", 1))
        for name, least in bounds:
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if value < least:
                raise UsageError(
                    f"{option} {value}: at least {least} needed", f"for example {option} 32"
                )
        if self.target_error is not None and not self.target_error > 0:
            raise UsageError(
                f"--target-error {self.target_error}: must be above 0", "for example 0.05"
            )

    @property
    def rounds(self) -> int:
        """How many rounds there may be."""
        return 1 if self.target_error is None else self.max_rounds

    @property
    def most_images(self) -> int:
        """How many images all rounds can use."""
        return self.samples * (self.rounds if self.method == "exact" else 1)


def estimate(
    module: nn.Module,
    images: Tensor,
    labels: Tensor,
    config: TraceConfig = TraceConfig(),
    *,
    resume: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Return the traces of every convolution and linear layer of a float network, in the network's order.

    `images` are normalised inputs [N, C, S, S], at least two, of which `config.most_images` are used; `labels` [N]
    matter to the Hessian of the cross-entropy alone. The network runs in eval mode; its training flags and gradients
    are on return as they were. With `resume` the state is kept in that file, and a killed run goes on from it. The
    model's digest is left to the caller. Raises FertoolError for a network without such layers, with a layer used
    twice, without second derivatives where they are needed, or with traces that are not finite.
    """
    if len(images) < 2:
        raise UsageError(f"--samples {len(images)}: at least 2 needed", "for example --samples 32")
    layers = weighted_layers(module)
    if not layers:
        raise FertoolError(
            "the model has no float convolution or linear layer",
            "give the model before quantisation",
        )
    run = _Run(module, layers, images[: config.most_images], labels, config)
    fingerprint = run.fingerprint() if resume else ""
    if resume:
        run.tally.restore(resume, fingerprint, run.most_images)
    saved = time.monotonic()
    with eval_mode(module), torch.enable_grad():
        while not run.finished():
            for done, total in run.measure_batch():
                if on_progress:
                    on_progress(done, total)
                if resume and time.monotonic() - saved >= _SAVE_SECONDS:
                    run.tally.save(resume, fingerprint)
                    saved = time.monotonic()
    return run.summary()


@dataclass
class _Run:
    """A measurement under way."""

    module: nn.Module
    layers: Mapping[str, Layer]
    images: Tensor
    labels: Tensor
    config: TraceConfig

    def __post_init__(self) -> None:
        self._exact = self.config.method == "exact"
        self.device = next(iter(self.layers.values())).weight.device
        self.round_size = min(self.config.samples, len(self.images))
        channels = sum(len(layer.weight) for layer in self.layers.values())
        self.tally = Tally(channels, 0 if self._exact else self.config.probes)

    @property
    def most_images(self) -> int:
        """How many images all rounds together may have."""
        return len(self.images) if self._exact else self.config.rounds * self.round_size

    def fingerprint(self) -> str:
        """Digest everything that decides how the run ends."""
        tensors = {f"module/{name}": tensor for name, tensor in self.module.state_dict().items()}
        tensors.update(images=self.images, labels=self.labels)
        digest = pack({}, tensors)[0]["digest"]
        return digest_text(
            canonical_json([asdict(self.config), digest, self.device.type, torch.__version__])
        )

    def finished(self) -> bool:
        """Return whether a round has just ended and is the last one."""
        done = self.tally.images
        used_up = self._exact and done == len(self.images)
        if not done or self.tally.passes or (done % self.round_size and not used_up):
            return False
        if used_up or done >= self.config.rounds * self.round_size:
            return True
        return (
            self.config.target_error is not None
            and self.summary().relative_error() <= self.config.target_error
        )

    def measure_batch(self) -> Iterator[tuple[int, int]]:
        """Measure the next batch; yields, after each pass, the work done and that up to the end of the round."""
        first = self.tally.images
        within = first % self.round_size
        round_start = first - within if self._exact else 0
        start, round_stop = (
            round_start + within,
            min(round_start + self.round_size, len(self.images)),
        )
        stop = min(
            start + affordable_batch(self.config.batch_size, self.images.shape[-1]), round_stop
        )
        passes = self._passes(slice(start, stop), first)
        for one in passes[self.tally.passes :]:
            self.tally.add(one())
            done = first * len(passes) + (stop - start) * self.tally.passes
            yield done, (first + round_stop - start) * len(passes)
        self.tally.close(stop - start)

    def _passes(self, part: slice, first: int) -> list[Pass]:
        """Return the passes over the images `part`, of which the first is number `first` over all rounds."""
        config = self.config
        images = self.images[part].detach().to(self.device)
        if HESSIAN_OF[config.method] == "cross-entropy":
            return product_passes(
                *(self.module, self.layers, images, self.labels[part].to(self.device)),
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
        """Return what is known after whole batches; raises FertoolError when a trace is not finite."""
        traces, errors = self.tally.traces()
        layers = []
        for name, part in channel_slices(self.layers).items():
            if not bool(torch.isfinite(self.tally.squares[:, part]).all()):
                raise FertoolError(
                    f"layer {name}: a trace is not finite",
                    "check the model's weights for infinite values",
                )
            (weights, activations), (weights_sem, activations_sem) = (
                traces[:, part].tolist(),
                errors[:, part].tolist(),
            )
            layers.append(
                LayerSensitivity(
                    name=name,
                    weight_trace=tuple(weights),
                    weight_trace_sem=tuple(weights_sem),
                    weight_params=self.layers[name].weight[0].numel(),
                    activation_trace=tuple(activations),
                    activation_trace_sem=tuple(activations_sem),
                )
            )
        return Sensitivity(
            model_digest="",
            method=self.config.method,
            samples=self.tally.images if self._exact else self.round_size,
            probes=0
            if self._exact
            else self.config.probes * (self.tally.images // self.round_size),
            seed=self.config.seed,
            layers=tuple(layers),
            hessian=HESSIAN_OF[self.config.method],
        )


def _generator(*place: int) -> torch.Generator:
    """Return a generator of its own for each place in the work."""
    digest = hashlib.sha256(repr(place).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
