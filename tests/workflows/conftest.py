import pytest
import torch

from fertool import models
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The file of a small network with HardSwish."""
    path = tmp_path_factory.mktemp("small") / "m.pt"
    torch.manual_seed(0)
    spec, module = models.create(
        "mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(1, 32), CLASSES
    )
    models.save_model(path, spec, module)
    return path
