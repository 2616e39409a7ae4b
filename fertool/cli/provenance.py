"""The step that a command adds to a model's history: options, digests of all inputs, versions; no names, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.spec import ProvenanceStep

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset


def make_step(
    command: str,
    options: Mapping[str, Any],
    seed: int | None,
    **inputs: FaceDataset | Path | str | None,
) -> ProvenanceStep:
    """Return the provenance step of one command.

    `inputs` by role: a data set, a file (its bytes are digested), or a digest that is known already.
    """
    import torch

    import fertool
    from fertool.artifact.store import file_digest

    digests = {}
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
