import pytest
import torch
from torch import nn

from fertool.data.augment import AugmentConfig
from fertool.data.dataset import FaceDataset
from fertool.distill.recorded import Views
from fertool.spec import InputSpec

CLASSES = ("happy", "neutral", "sad")


@pytest.fixture
def shape():
    return InputSpec(size=12)


@pytest.fixture
def views():
    """Three views that move, recolour and erase."""
    return Views(3, AugmentConfig(translate=0.1, erasing=0.5, mixup=0.0), seed=7)


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
    """Make a small network that answers with logits of some size."""

    def make(seed=0, channels=1, outputs=3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = (nn.Conv2d(channels, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 2)))
            head = nn.Linear(36, outputs)
            with torch.no_grad():
                head.weight.mul_(8)
            return nn.Sequential(*body, nn.Flatten(), head)

    return make
