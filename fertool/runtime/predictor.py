"""A model file that is ready to run, whichever runtime it is for.

Nothing here imports torch: the peak memory of ONNX Runtime would otherwise contain torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.contract import Contract
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError
from fertool.onnx_runtime import guarded_memory, run_with_time_limit
from fertool.results import Assumptions
from fertool.spec import InputSpec, Spec, affordable_batch

PASS_BYTES = 1 << 30
"""How much memory one image may take in a graph that others may have made."""
LARGEST_BATCH_BYTES = 1 << 29
"""The most float pixels of one batch: a small file may declare any size."""
_FLOAT_BYTES = 4

ChooseProfile = Callable[[NDArray[np.uint8]], NDArray[np.int64]]
Forward = Callable[[], Any]
"""One pass over prepared images: from uint8 pixels to logits [N, K], preprocessing included."""


@dataclass(frozen=True)
class ProfileRuns:
    """The profiles of a dynamic network one by one.

    `logits` returns those of all profiles, float32 [profiles, N, K], `macs` are those of each
    alone, and `executed` has the profiles that run for an image, by the one whose logits it gets.
    """

    logits: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    macs: tuple[int, ...]
    executed: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Predictor:
    """A model file ready to run on the CPU.

    `spec` is None for a foreign ONNX file; then `params` and `macs` are unknown too, and
    `assumptions` has how it is used. `batch` is the only batch size that the file takes, or None
    for any. `prepare` turns uint8 images into a pass over them. `choose_profile`, which a dynamic
    network has, returns the profile of each image, int64 [N]; `profiles` runs each profile, where
    the file's runtime can. `stop` ends a pass of a graph, which could run for ever, and
    `time_limit_s` is how long one image of it may take. `contract` is that of a file with fertool's
    header.
    """

    path: Path
    runtime: str
    spec: Spec | None
    classes: tuple[str, ...]
    input: InputSpec
    batch: int | None
    prepare: Callable[[NDArray[np.uint8]], Forward]
    choose_profile: ChooseProfile | None = None
    profiles: ProfileRuns | None = None
    assumptions: Assumptions | None = None
    stop: Callable[[], None] | None = None
    time_limit_s: float = ForeignModel().time_limit
    contract: Contract | None = None

    @classmethod
    def of(
        cls,
        path: Path,
        runtime: str,
        spec: Spec,
        prepare: Callable[[NDArray[np.uint8]], Forward],
        *,
        batch: int | None = None,
        choose_profile: ChooseProfile | None = None,
        profiles: ProfileRuns | None = None,
    ) -> Self:
        """Return the predictor for a file of fertool, whose classes and input its spec has."""
        return cls(
            path=path,
            runtime=runtime,
            spec=spec,
            classes=spec.classes,
            input=spec.input,
            batch=batch,
            prepare=prepare,
            choose_profile=choose_profile if spec.gates else None,
            contract=Contract.of(spec),
            profiles=profiles,
        )

    @property
    def channels(self) -> int:
        """The channels of the images that it takes, which may be more than the network's."""
        return self.contract.channels if self.contract else self.input.channels

    @property
    def any_size(self) -> bool:
        """Whether it takes images of any size, and resizes them itself."""
        return self.contract is not None and self.contract.any_size

    @property
    def params(self) -> int | None:
        """The number of learned values, from the header."""
        return self.spec.params if self.spec else None

    @property
    def macs(self) -> int | None:
        """The multiply-accumulates of one image, from the header."""
        return self.spec.macs if self.spec else None

    @property
    def quantized(self) -> bool:
        """Whether the network computes with integers, by the header."""
        if self.spec is None or self.spec.quant is None:
            return False
        return self.spec.quant.computes_integers

    @property
    def digest(self) -> str:
        """The digest in the header; for a file without one the SHA-256 of its bytes."""
        if self.spec and self.spec.digest:
            return self.spec.digest
        # Imported here, since the store imports torch.
        from fertool.artifact.store import file_digest

        return file_digest(self.path)

    def prepare_pass(self, images: Any) -> Forward:
        """Return a pass over uint8 images [N, C, S, S], with as little overhead as possible.

        Of a file with preprocessing they are [N, C, H, W] of any size. Raises FertoolError when the
        shape is not the model's.
        """
        # Before the pass, so that copies are not timed with it.
        pixels = np.ascontiguousarray(images, dtype=np.uint8)
        self._require_shape(pixels.shape)
        return self.prepare(pixels)

    def _require_shape(self, shape: Sequence[int]) -> None:
        image_shape: tuple[Any, ...] = (self.channels, self.input.size, self.input.size)
        if self.any_size:
            image_shape = (self.channels, *shape[2:]) if len(shape) == 4 else ("C", "H", "W")
        if tuple(shape[1:]) == image_shape and self.batch in (None, shape[0]):
            return
        given = "x".join(map(str, shape))
        wanted = "x".join(map(str, (self.batch or "N", *image_shape)))
        raise FertoolError(
            f"{self.path}: images of shape {given}, the model takes {wanted}",
            "open the data with the model's size and channels",
        )

    def run_checked(self, forward: Forward, images: int) -> NDArray[np.float32]:
        """Run a pass over so many images and return its logits float32 [images, K].

        Raises FertoolError when it takes too long, fails, or returns anything else.
        """
        if self.stop is None:
            result = forward()
        else:
            with guarded_memory(PASS_BYTES * images):
                result = run_with_time_limit(
                    forward, self.stop, self.time_limit_s * images, str(self.path)
                )

        logits = np.asarray(result)
        shape = (images, len(self.classes))
        if logits.shape != shape or logits.dtype.kind != "f":
            raise FertoolError(
                f"{self.path}: the output is {logits.dtype} of shape {logits.shape}, "
                f"not floats of shape {shape}",
                "the output must be floats [images, classes]; another one: ``output_name=NAME``",
            )
        # By the largest logit: minus infinity stands for a probability of 0.
        if not np.isfinite(logits.max(axis=1)).all():
            raise FertoolError(
                f"{self.path}: the output has NaN or infinity",
                "its weights or its preprocessing are wrong",
            )
        logits = logits.astype(np.float32)
        if self.contract and self.spec:
            logits = self.contract.to_logits(logits, self.spec.temperature)
        return logits

    def logits(
        self,
        images: Any,
        batch_size: int = 256,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Return logits float32 [N, K] of uint8 images [N, C, S, S] (array or CPU tensor).

        `on_progress` counts images. Raises FertoolError as `run_checked` does.
        """
        total = len(images)
        if total == 0:
            return np.empty((0, len(self.classes)), dtype=np.float32)
        # The first pass has one image, so that a graph that never ends is noticed soon.
        if self.stop and not self.batch:
            self._require_shape(images.shape)
            self._batch_logits(np.asarray(images[:1], dtype=np.uint8))

        # Crops of any size may be larger than what the network sees.
        side = max(self.input.size, *images.shape[2:])
        step = self.batch or affordable_batch(batch_size, side)
        parts = []
        for start in range(0, total, step):
            batch = np.asarray(images[start : start + step], dtype=np.uint8)
            parts.append(self._batch_logits(batch))
            if on_progress:
                on_progress(start + len(batch), total)
        return np.concatenate(parts)

    def profiles_of(self, images: Any, batch_size: int = 256) -> NDArray[np.int64]:
        """Return the profile of each image, int64 [N], of a dynamic network."""
        assert self.choose_profile is not None
        step = self.batch or affordable_batch(batch_size, self.input.size)
        parts = []
        for start in range(0, len(images), step):
            batch = np.asarray(images[start : start + step], dtype=np.uint8)
            parts.append(self.choose_profile(batch))
        return np.concatenate(parts)

    def _batch_logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of one batch, which may be smaller than a fixed batch size."""
        count = len(images)
        # Logits of the padding are dropped: a graph of a fixed batch size takes no smaller one.
        if self.batch and count < self.batch:
            images = np.pad(images, ((0, self.batch - count), (0, 0), (0, 0), (0, 0)))
        return self.run_checked(self.prepare_pass(images), len(images))[:count]


def largest_batch(input: InputSpec) -> int:
    """Return how many images of a model fit one batch, by their float pixels; at least 1."""
    image_bytes = _FLOAT_BYTES * input.channels * input.size**2
    return max(1, LARGEST_BATCH_BYTES // image_bytes)
