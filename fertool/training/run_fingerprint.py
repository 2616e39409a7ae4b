"""A digest of everything that decides how a training ends."""

from __future__ import annotations

from dataclasses import asdict

from torch import nn

from fertool.artifact.store import pack
from fertool.config.training import TrainConfig
from fertool.data.dataset import FaceDataset
from fertool.header_json import canonical_json, digest_text
from fertool.objective import Objective
from fertool.spec import InputSpec


def run_fingerprint(
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    input: InputSpec,
    config: TrainConfig,
    objective: Objective,
) -> str:
    """Return the digest of a run before it starts: a killed run resumes only under the same one.

    Options, data, objective and the initial weights of `module` decide.
    """
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    # The labels too: a digest is that of a whole source, of which options may choose a part.
    tensors.update(train=train.targets(), val=val.targets())
    header, _ = pack({}, tensors)
    described = {
        "config": {**asdict(config), "augmentation": config.augmentation.given_values()},
        "input": asdict(input),
        "classes": train.classes,
        "data": [train.digest, val.digest],
        "objective": objective.fingerprint,
        "tensors": header["digest"],
    }
    return digest_text(canonical_json(described))
