"""The step that a workflow adds to a model's lineage: options, digests of inputs, versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.option import values_of
from fertool.spec import ProvenanceStep

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset

_NOT_RECORDED = {"resume", "device", "seed"}
"""Options that change no result, and the seed, which has a field of its own."""


def make_step(
    command: str,
    options: Mapping[str, Any],
    seed: int | None,
    **inputs: FaceDataset | Path | str | None,
) -> ProvenanceStep:
    """Return the provenance step of one command; no file names and no clock stand in it.

    `inputs` by role: a data set, a file (its bytes are digested), or a digest that is known.
    """
    import torch

    import fertool
    from fertool.artifact.store import file_digest

    digests: dict[str, str] = {}
    for role, value in inputs.items():
        if isinstance(value, Path):
            digests[role] = file_digest(value)
        elif isinstance(value, str):
            digests[role] = value
        elif value is not None:
            digests[role] = value.digest
    versions = {"fertool": fertool.__version__, "torch": torch.__version__.split("+")[0]}
    return ProvenanceStep(
        command=command, options=dict(options), inputs=digests, versions=versions, seed=seed
    )


def recorded_options(*configs: Any) -> dict[str, Any]:
    """Return the options of configs and mappings as the provenance records them.

    Files are left out, since digests stand for inputs, and so is what was not given.
    """
    merged: dict[str, Any] = {}
    for config in configs:
        if dataclasses.is_dataclass(config):
            config = values_of(config)
        merged.update(config)
    recorded: dict[str, Any] = {}
    for name, value in merged.items():
        if not _is_recorded(name, value):
            continue
        # JSON has no tuples: a step has to be equal to the one that is read back.
        if isinstance(value, tuple):
            value = list(value)
        recorded[name] = value
    return recorded


def _is_recorded(name: str, value: Any) -> bool:
    if value is None or value in ((), {}):
        # Not given.
        return False
    return name not in _NOT_RECORDED and not isinstance(value, Path)
