"""Logits files: teachers' logits on the training images, for distillation without the teachers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.artifact.logits_header import ImageSet, LogitsSpec
from fertool.artifact.store import pack, unpack
from fertool.config.training import DEGRADATION_OPTIONS, AugmentConfig
from fertool.data.augment import apply_augmentation
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.device import place
from fertool.distillation.cached_teachers import CachedTeacher, Views
from fertool.distillation.knowledge import Teacher, class_order
from fertool.errors import FertoolError, naming
from fertool.header_json import DAMAGED, canonical_json
from fertool.spec import InputSpec, ProvenanceStep
from fertool.strict_json import WrongContentError, as_type

_BATCH = 256
_MIXING = ("mixup", "cutmix")
_DRAWN_EACH_EPOCH = (*_MIXING, *DEGRADATION_OPTIONS)
"""Augmentations that are drawn again in every epoch, and so belong to no view."""


@dataclass(frozen=True)
class CachedLogits:
    """A header and its logits float16 [M, V, N, K].

    M teachers, V views (1 where the header has 0: that of the plain images), N images, K classes.
    """

    spec: LogitsSpec
    logits: Tensor

    @property
    def views(self) -> Views | None:
        """The views of the images; None where they are unchanged."""
        return _views(self.spec)

    @property
    def teachers(self) -> tuple[CachedTeacher, ...]:
        """The teachers, as a distillation takes them."""
        teachers = []
        for index, logits in enumerate(self.logits):
            digest = f"{self.spec.digest}/{index}"
            teachers.append(CachedTeacher(logits, self.spec.classes, self.views, digest))
        return tuple(teachers)


def plan_cached_logits(
    train: FaceDataset,
    views: int,
    augmentation: AugmentConfig,
    seed: int,
    teachers: Sequence[str],
    step: ProvenanceStep,
) -> LogitsSpec:
    """Return the header of a logits file, all but its digest, before the teachers run.

    0 `views` are one pass over the unchanged images; `teachers` are the digests of their files,
    `step` is the command.
    """
    channels, size = train.images.shape[1:3]
    spec = LogitsSpec(
        classes=train.classes,
        images=ImageSet(len(train), channels, size, train.images_digest()),
        teachers=tuple(teachers),
        views=views,
        augmentation=_augmentation_entries(augmentation) if views else {},
        seed=seed,
        draws="",
        provenance=(step,),
    )
    # In a second step, since the draws are those of the views that the header describes.
    return replace(spec, draws=_draws_digest(spec))


@torch.no_grad()
def compute_cached_logits(
    spec: LogitsSpec,
    teachers: Sequence[Teacher],
    train: FaceDataset,
    input: InputSpec,
    *,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
) -> CachedLogits:
    """Run the teachers, in eval mode, on every image in every view of the plan.

    They get what a student with this `input` gets, adapted to their own channels and size as in a
    distillation. `on_progress` counts images.

    Raises FertoolError for teachers of other classes and for logits beyond the range of float16.
    """
    views = _views(spec)
    view_count = views.count if views else 1
    images = len(train)
    orders: list[Tensor] = []
    for teacher in teachers:
        orders.append(class_order(teacher.classes, train.classes).to(device))
        place(teacher.module, device).eval()

    # float16 as in the file, so that a student gets the same numbers in this run and from the file.
    shape = (len(teachers), view_count, images, len(train.classes))
    logits = torch.empty(shape, dtype=torch.float16, device=device)
    for view in range(view_count):
        for batch, pixels in _augmented_batches(train.images, views, view, device):
            inputs = to_input(pixels, input)
            for teacher, order, rows in zip(teachers, orders, logits, strict=True):
                rows[view, batch] = teacher.logits(inputs, input)[:, order].to(torch.float16)
            if on_progress:
                done = view * images + min(images, batch.stop)
                on_progress(done, view_count * images)

    if not logits.isfinite().all():
        raise FertoolError(
            "a teacher's logits are not finite, or beyond the range of float16",
            "use a teacher that was trained well",
        )
    return CachedLogits(spec, logits.cpu())


def merge_cached_logits(parts: Mapping[str, CachedLogits], step: ProvenanceStep) -> CachedLogits:
    """Return the teachers of several recordings, by the files' names, as those of one.

    Each teacher keeps its own logits: only so is the mean of their distributions right at every
    temperature, which comes between the two. Classes are in the order of the first file.

    Raises FertoolError for recordings of other classes, images or views, and for a teacher that is
    in two of them and would count twice.
    """
    (first_name, first), *others = parts.items()
    logits = [first.logits]
    teachers = list(first.spec.teachers)
    for name, part in others:
        differing = sorted(set(part.spec.classes) ^ set(first.spec.classes))
        if differing:
            raise FertoolError(
                f"{name}: differs from {first_name} in its classes: {', '.join(differing)}",
                "record both on data of the same classes",
            )
        order = class_order(part.spec.classes, first.spec.classes)
        _require_same_recording(first.spec, part.spec, f"{name} and {first_name}")
        twice = set(teachers) & set(part.spec.teachers)
        if twice:
            raise FertoolError(
                f"{name}: has a teacher that another file has too, {min(twice)[:12]}",
                "name each recording once: all teachers have the same weight",
            )
        teachers += part.spec.teachers
        logits.append(part.logits[..., order])
    provenance = (*first.spec.provenance, step)
    spec = replace(first.spec, teachers=tuple(teachers), provenance=provenance, digest="")
    return CachedLogits(spec, torch.cat(logits))


def _require_same_recording(first: LogitsSpec, other: LogitsSpec, names: str) -> None:
    """Raise FertoolError unless two recordings are of the same images in the same views."""
    if other.images != first.images:
        raise FertoolError(
            f"{names}: logits of other training images",
            "record both on the same data, in the same size",
        )
    # The draws are a digest of the seed's random numbers.
    views = [(spec.views, _views(spec), spec.draws) for spec in (first, other)]
    if views[0] != views[1]:
        raise FertoolError(
            f"{names}: recorded under different views",
            "record both with the same ``logit_views``, augmentation and ``seed``",
        )


def _augmented_batches(
    images: Tensor, views: Views | None, view: int, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the images of one view in batches: their indices, and their pixels on the device."""
    params = None
    if views:
        params = views.augment_params(len(images), view).to(device)
    for start in range(0, len(images), _BATCH):
        batch = slice(start, start + _BATCH)
        pixels = images[batch].to(device)
        if params is not None:
            pixels = apply_augmentation(pixels, params[batch])
        yield batch, pixels


def save_logits(path: Path, cached: CachedLogits) -> CachedLogits:
    """Write a logits file atomically; returns the cached logits with the digest filled in."""
    # Through its JSON form, in which the header has no tuples.
    header, content = pack(json.loads(cached.spec.to_json()), {"logits": cached.logits})
    write_atomic(path, content)
    return replace(cached, spec=replace(cached.spec, digest=header["digest"]))


def load_logits(path: Path) -> CachedLogits:
    """Read a logits file and check it; nothing in it is executed.

    Raises FertoolError for another kind of file, for a damaged one, and where its views cannot be
    reproduced.
    """
    header, tensors = unpack(path)
    spec = LogitsSpec.from_json(canonical_json(header), str(path))
    shape = (len(spec.teachers), max(1, spec.views), spec.images.count, len(spec.classes))
    logits = tensors.get("logits")
    if logits is None or logits.dtype != torch.float16 or logits.shape != shape:
        raise FertoolError(
            f"{path}: the logits do not fit the header, which says {list(shape)}",
            "make or copy the file again",
        )

    # A student must get the very pixels that the teachers saw.
    try:
        draws = _draws_digest(spec)
    except (WrongContentError, FertoolError) as error:
        raise FertoolError(
            f"{path}: {DAMAGED}: `augmentation`: {error}", "make the file again"
        ) from None
    if draws != spec.draws:
        raise FertoolError(
            f"{path}: recorded under an augmentation "
            "that this fertool or PyTorch does not reproduce",
            "record the teachers again with ``save_logits``",
        )
    return CachedLogits(spec, logits)


def require_same_images(spec: LogitsSpec, train: FaceDataset, name: str) -> None:
    """Raise FertoolError unless classes and images are those of the logits file.

    Images must have the same shape and order; classes may stand in another order, and images may
    have other labels.
    """
    # Called for its error alone: other classes make a clearer message than other images.
    with naming(name):
        class_order(spec.classes, train.classes)
    count = spec.images.count
    if len(train) != count:
        problem = f"logits of {count} training images, the data has {len(train)}"
    elif train.images_digest() != spec.images.digest:
        problem = (
            f"logits of {count} training images "
            "that are not those of the data, or not in their order"
        )
    else:
        return
    raise FertoolError(
        f"{name}: {problem}",
        "give the data that they were recorded on, or record anew with ``save_logits``",
    )


def _views(spec: LogitsSpec) -> Views | None:
    if not spec.views:
        return None
    return Views(spec.views, _parse_augmentation(spec.augmentation), spec.seed)


def _draws_digest(spec: LogitsSpec) -> str:
    """Return the digest of the first view's random numbers; they depend on PyTorch's version too.

    Equal digests stand for equal pixels in all views.
    """
    views = _views(spec)
    if views is None:
        return ""
    return views.augment_params(spec.images.count, 0).digest


def _augmentation_entries(config: AugmentConfig) -> dict[str, Any]:
    """Return the numbers of the augmentation that a header holds."""
    entries = config.given_values()
    return {name: value for name, value in entries.items() if name not in _DRAWN_EACH_EPOCH}


def _parse_augmentation(entries: Mapping[str, Any]) -> AugmentConfig:
    """Return the augmentation of a header.

    Raises WrongContentError for numbers that this version does not know.
    """
    complete = {**entries, **dict.fromkeys(_MIXING, 0.0)}
    return as_type(complete, AugmentConfig, known_only=True)
