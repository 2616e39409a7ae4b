"""Logits files: what teachers say about the training images, so that others can be taught without them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.artifact.logits_header import ImageSet, LogitsSpec
from fertool.artifact.store import pack, unpack
from fertool.config.training import AugmentConfig
from fertool.data.augment import apply_augmentation
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.device import place
from fertool.distill.objective import Teacher, class_order
from fertool.distill.recorded import RecordedTeacher, Views
from fertool.errors import FertoolError
from fertool.header_json import DAMAGED, canonical_json
from fertool.spec import InputSpec, ProvenanceStep
from fertool.strict_json import WrongContentError, as_type

_BATCH = 256


@dataclass(frozen=True)
class Recording:
    """A header and its logits float16 [M, V, N, K]: M teachers, V views (one, if the header says 0), N images."""

    spec: LogitsSpec
    logits: Tensor

    @property
    def views(self) -> Views | None:
        """How the images are changed in the views; None when they are not."""
        return _views(self.spec)

    @property
    def teachers(self) -> tuple[RecordedTeacher, ...]:
        """Those that may stand in a distillation."""
        return tuple(
            RecordedTeacher(logits, self.spec.classes, self.views, f"{self.spec.digest}/{index}")
            for index, logits in enumerate(self.logits)
        )


def plan_recording(
    train: FaceDataset,
    views: int,
    augmentation: AugmentConfig,
    seed: int,
    teachers: Sequence[str],
    step: ProvenanceStep,
) -> LogitsSpec:
    """Return the header of a recording, all but its digest, before the work is done.

    `views` 0 is one look at the images as they are; `teachers` are the digests of their files, `step` the command.
    """
    channels, size = train.images.shape[1:3]
    spec = LogitsSpec(
        classes=train.classes,
        images=ImageSet(len(train), channels, size, train.images_digest()),
        teachers=tuple(teachers),
        views=views,
        augmentation=_as_header(augmentation) if views else {},
        seed=seed,
        draws="",
        provenance=(step,),
    )
    return replace(spec, draws=_draws(spec))


@torch.no_grad()
def record_logits(
    spec: LogitsSpec,
    teachers: Sequence[Teacher],
    train: FaceDataset,
    input: InputSpec,
    *,
    device: torch.device,
    on_progress: Callable[[int, int], None] | None = None,
) -> Recording:
    """Let teachers, put into eval mode, look at every image in every view of the plan; `on_progress` counts images.

    They see what a student with this `input` sees, fitted to their own channels and size as in a distillation.
    Raises FertoolError for teachers of other classes and for logits that float16 cannot hold.
    """
    views, n = _views(spec), len(train)
    rounds = views.count if views else 1
    orders = [class_order(teacher.classes, train.classes).to(device) for teacher in teachers]
    for teacher in teachers:
        place(teacher.module, device).eval()
    logits = torch.empty(
        len(teachers), rounds, n, len(train.classes), dtype=torch.float16, device=device
    )
    for view in range(rounds):
        changes = views.changes(n, view).to(device) if views else None
        for start in range(0, n, _BATCH):
            part = slice(start, start + _BATCH)
            images = train.images[part].to(device)
            inputs = to_input(
                images if changes is None else apply_augmentation(images, changes[part]), input
            )
            for teacher, order, row in zip(teachers, orders, logits, strict=True):
                row[view, part] = teacher.logits(inputs, input)[:, order].to(torch.float16)
            if on_progress:
                on_progress(view * n + min(n, start + _BATCH), rounds * n)
    if not logits.isfinite().all():
        raise FertoolError(
            "a teacher's logits are not finite, or beyond the range of float16",
            "use a teacher that was trained well",
        )
    return Recording(spec, logits.cpu())


def save_logits(path: Path, recording: Recording) -> Recording:
    """Write a logits file atomically; returns the recording with the digest filled in."""
    header, content = pack(json.loads(recording.spec.to_json()), {"logits": recording.logits})
    write_atomic(path, content)
    return replace(recording, spec=replace(recording.spec, digest=header["digest"]))


def load_logits(path: Path) -> Recording:
    """Read a logits file and check it; nothing in it is executed.

    Raises FertoolError for another kind of file, for a damaged one, and where the views that it was recorded under
    cannot be repeated.
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
    try:
        draws = _draws(spec)
    except (WrongContentError, FertoolError) as error:
        raise FertoolError(
            f"{path}: {DAMAGED}: `augmentation`: {error}", "make the file again"
        ) from None
    if draws != spec.draws:
        raise FertoolError(
            f"{path}: recorded under changes of the images that this fertool or PyTorch does not repeat",
            "record the teachers again with --save-logits",
        )
    return Recording(spec, logits)


def require_same_images(spec: LogitsSpec, train: FaceDataset, name: str) -> None:
    """Raise FertoolError unless classes and images are the recording's, these in its shape and order.

    Classes may stand in another order, and images may have other labels.
    """
    class_order(spec.classes, train.classes)
    if len(train) != spec.images.count:
        found = f"of {spec.images.count} training images, the data has {len(train)}"
    elif train.images_digest() != spec.images.digest:
        found = f"of {spec.images.count} training images that are not those of the data, or not in their order"
    else:
        return
    raise FertoolError(
        f"{name}: logits {found}",
        "give the data that they were recorded on, or record anew with --save-logits",
    )


def _views(spec: LogitsSpec) -> Views | None:
    return Views(spec.views, _from_header(spec.augmentation), spec.seed) if spec.views else None


def _draws(spec: LogitsSpec) -> str:
    views = _views(spec)
    return views.changes(spec.images.count, 0).digest if views else ""


_AFRESH = ("mixup", "cutmix")
"""What is drawn afresh in every epoch, and so is not part of a view."""


def _as_header(config: AugmentConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _AFRESH}


def _from_header(entries: Mapping[str, Any]) -> AugmentConfig:
    """Return the changes that a header names; raises WrongContentError for others than this version knows."""
    return as_type({**entries, **dict.fromkeys(_AFRESH, 0.0)}, AugmentConfig, known_only=True)
