import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fertool.data.augment import AugmentConfig
from fertool.data.dataset import FaceDataset
from fertool.losses import cross_entropy
from fertool.spec import InputSpec
from fertool.train import TrainConfig

# With importlib's import mode no test folder is on the path, and `crew` has to be found.
sys.path.append(str(Path(__file__).parent))

CLASSES = ("happy", "neutral", "sad")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def shape():
    return InputSpec(size=12)


@pytest.fixture
def faces():
    """Make data of one split: a bright bar at the top, in the middle or at the bottom, under noise."""

    def make(n, split="train", seed=0):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 3
        images = torch.randint(0, 160, (n, 1, 12, 12), generator=generator)
        for position in range(3):
            images[labels == position, :, 4 * position : 4 * position + 3] += 90
        return FaceDataset(images.to(torch.uint8), labels, CLASSES, split, digest="source")

    return make


@pytest.fixture
def network():
    """Make a small network with all that a run has to keep: batch norm, depthwise convolution and dropout."""

    def make(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
                *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish()),
                *(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 3)),
            )

    return make


@pytest.fixture
def quick():
    """Make a configuration that learns the bars in a few epochs."""

    def make(**changes):
        augmentation = AugmentConfig(flip=0.5, rotation=5, mixup=0.2)
        return TrainConfig(**{"epochs": 5, "batch_size": 16, "lr": 0.02, "augmentation": augmentation, **changes})

    return make


@pytest.fixture
def adapted():
    """Make an objective with a layer of its own, which sees what the network answers."""

    class Adapted:
        fingerprint = "adapted"

        def __init__(self):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.adapters = nn.Linear(3, 3, bias=False)

        def __call__(self, module, inputs, targets):
            return cross_entropy(self.adapters(module(inputs)), targets)

    return Adapted
