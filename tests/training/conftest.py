import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fertool.config.training import AugmentConfig
from fertool.losses import cross_entropy
from fertool.spec import InputSpec
from fertool.training import TrainConfig

# With importlib's import mode no test folder is on the path, and `parallel_runs` has to be found.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def shape():
    return InputSpec(size=12)


@pytest.fixture
def network():
    """Make a small network with batch norm, a depthwise convolution and dropout."""

    def make(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
                *(
                    nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
                    nn.BatchNorm2d(8),
                    nn.Hardswish(),
                ),
                *(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 3)),
            )

    return make


@pytest.fixture
def quick():
    """Make a configuration that learns the bars in a few epochs."""

    def make(**changes):
        augmentation = AugmentConfig(flip=0.5, rotation=5, mixup=0.2)
        # What auto is depends on the processor.
        fixed = {"precision": "fp32", "augmentation": augmentation}
        # Plain: each test adds what it is about.
        fixed |= {"optimizer": "adam", "weight_decay": 0.0, "warmup_epochs": 0.0, "patience": 0}
        return TrainConfig(**{"epochs": 5, "batch_size": 16, "lr": 0.02, **fixed, **changes})

    return make


@pytest.fixture
def adapted():
    """Make an objective with a layer of its own, which reads the logits of the network."""

    class Adapted:
        fingerprint = "adapted"

        def __init__(self):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.adapters = nn.Linear(3, 3, bias=False)

        def __call__(self, module, inputs, targets):
            return cross_entropy(self.adapters(module(inputs)), targets)

    return Adapted
