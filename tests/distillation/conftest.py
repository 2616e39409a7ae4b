import pytest
import torch
from torch import nn

from fertool.config.training import AugmentConfig
from fertool.distillation.cached_teachers import Views
from fertool.spec import InputSpec


@pytest.fixture
def shape():
    return InputSpec(size=12)


@pytest.fixture
def views():
    """Three views that move, recolour and erase."""
    return Views(3, AugmentConfig(translate=0.1, erasing=0.5, mixup=0.0), seed=7)


@pytest.fixture
def network():
    """Make a small network with logits of some size."""

    def make(seed=0, channels=1, outputs=3):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body = (
                nn.Conv2d(channels, 6, 5, padding=2),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d((3, 2)),
            )
            head = nn.Linear(36, outputs)
            with torch.no_grad():
                head.weight.mul_(8)
            return nn.Sequential(*body, nn.Flatten(), head)

    return make
