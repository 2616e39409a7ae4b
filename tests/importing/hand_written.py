"""A network as people write them by hand: squeeze-and-excitation, depthwise, concat, split,
residual, a decoder.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.down, self.up = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x):
        scale = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(F.relu(self.down(scale))))


class HandWritten(nn.Module):
    def __init__(self, num_classes=3, channels=3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32)
        )
        self.point = nn.Sequential(nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.squeeze = Squeeze(32)
        self.down = nn.Sequential(
            nn.Conv2d(32, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU()
        )
        self.left, self.right = nn.Conv2d(16, 24, 3, 1, 1), nn.Conv2d(32, 40, 3, 1, 1)
        self.fuse = nn.Sequential(nn.Conv2d(96, 40, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU())
        self.head = nn.Linear(40, num_classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.squeeze(self.point(self.depthwise(x)))
        small = self.down(x)
        one, two = torch.split(small, [16, 32], dim=1)
        deep = torch.cat([self.left(one), self.right(two)], 1)
        wide = F.interpolate(F.relu(deep), size=x.shape[2:], mode="nearest")
        x = self.fuse(torch.cat([wide, x], 1))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def build(num_classes=3):
    """What the command line names."""
    torch.manual_seed(0)
    module = HandWritten(num_classes)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.running_mean, 0, 0.1)
    return module.eval()


def no_module():
    return "no module"


def failing():
    raise RuntimeError("the weights are elsewhere")
