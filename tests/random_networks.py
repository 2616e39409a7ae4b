"""Small networks of random parts, as people put convolutional networks together."""

import random

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.SiLU,
        nn.GELU,
        nn.Hardswish,
        nn.LeakyReLU,
        nn.ELU,
        nn.Mish,
        nn.Tanh,
        nn.PReLU,
    ),
    *(nn.Identity, nn.CELU, nn.Softsign),
)
"""Each is 0 at 0, so that a masked channel says nothing behind it either."""


class Part(nn.Module):
    """A function of its modules and of what it reads."""

    def __init__(self, run, **modules):
        super().__init__()
        self.run = run
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.run(self, x)


class Scaled(nn.Module):
    """Layer scale: a number for each channel."""

    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x):
        return x * self.gamma


def random_network(seed, classes=3, channels=3, size=24):
    """Return a module for images of this shape; the same seed makes the same one."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    parts, width, side = [conv(draw, channels, 16, 3, 2)], 16, size // 2
    for _ in range(draw.randint(3, 7)):
        make = draw.choice(KINDS)
        part, width, side = make(draw, width, side)
        parts.append(part)
    if draw.random() < 0.7:
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width, classes)]
    else:
        head = [nn.Flatten(), nn.Linear(side * side * width, 8), nn.ReLU(), nn.Linear(8, classes)]
    return nn.Sequential(*parts, *head)


def conv(draw, source, out, kernel=None, stride=1, groups=1):
    kernel = kernel or draw.choice((1, 3))
    layers = [
        nn.Conv2d(source, out, kernel, stride, kernel // 2, groups=groups, bias=draw.random() < 0.5)
    ]
    if draw.random() < 0.8:
        layers.append(nn.BatchNorm2d(out))
    return nn.Sequential(*layers, draw.choice(ACTIVATIONS)())


def plain(draw, width, side):
    out = draw.choice((16, 24, 32))
    stride = 2 if side >= 8 and draw.random() < 0.4 else 1
    return conv(draw, width, out, 3, stride), out, -(-side // stride)


def depthwise(draw, width, side):
    return (
        nn.Sequential(conv(draw, width, width, 3, groups=width), conv(draw, width, width, 1)),
        width,
        side,
    )


def grouped(draw, width, side):
    return (
        nn.Sequential(conv(draw, width, width, 3, groups=4), conv(draw, width, width, 1)),
        width,
        side,
    )


def residual(draw, width, side):
    body = nn.Sequential(conv(draw, width, draw.choice((8, 24)), 3), nn.LazyConv2d(width, 1))
    body(torch.zeros(1, width, side, side))
    return Part(lambda s, x: F.relu(s.body(x) + x), body=body), width, side


def inplace_residual(draw, width, side):
    def run(s, x):
        y = s.body(x)
        y += x
        return y.relu_()

    return (
        Part(run, body=nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))),
        width,
        side,
    )


def squeeze(draw, width, side):
    def run(s, x):
        scale = F.adaptive_avg_pool2d(x, 1).view(x.shape[0], x.shape[1])
        return x * torch.sigmoid(s.up(F.relu(s.down(scale)))).view(-1, x.size(1), 1, 1)

    return Part(run, down=nn.Linear(width, 4), up=nn.Linear(4, width)), width, side


def split(draw, width, side):
    first = draw.randint(4, width - 4)

    def run(s, x):
        one, two = torch.split(x, [first, width - first], dim=1)
        return torch.cat([s.two(two), s.one(one)], dim=1)

    return Part(run, one=conv(draw, first, 8, 3), two=conv(draw, width - first, 16, 1)), 24, side


def sliced_sum(draw, width, side):
    part = draw.randint(4, width - 4)

    def run(s, x):
        return torch.cat([x[:, :part] + s.a(x), x[:, part:]], 1)

    return Part(run, a=nn.Conv2d(width, part, 1)), width, side


def shuffled(draw, width, side):
    half = width // 2

    def run(s, x):
        kept, rest = x.chunk(2, dim=1)
        both = torch.cat([kept, s.a(rest)], 1)
        n, c, h, w = both.shape
        return both.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)

    return (
        nn.Sequential(conv(draw, width, width, 1), Part(run, a=conv(draw, half, half, 3))),
        width,
        side,
    )


def dense(draw, width, side):
    grown = draw.choice((4, 8))
    layers = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, grown, 3, padding=1))
    return Part(lambda s, x: torch.cat([x, s.a(x)], 1), a=layers), width + grown, side


def scaled(draw, width, side):
    body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), Scaled(width))
    return Part(lambda s, x: x + s.a(x), a=body), width, side


def gated(draw, width, side):
    def run(s, x):
        value, gate = s.a(x).chunk(2, 1)
        return value * torch.sigmoid(gate)

    return Part(run, a=nn.Conv2d(width, 2 * width, 1)), width, side


def pooled(draw, width, side):
    """Pool.

    Adaptive pools to several places are a case of their own, since PyTorch's exporter fails on
    some.
    """
    if side < 4 or side % 2:
        return nn.Identity(), width, side
    return draw.choice((nn.MaxPool2d, nn.AvgPool2d))(2), width, side // 2


def decoder(draw, width, side):
    def run(s, x):
        small = s.down(x)
        return torch.cat([F.interpolate(s.a(small), size=x.shape[2:], mode="nearest"), x], 1)

    return (
        Part(run, down=nn.AvgPool2d(2, ceil_mode=True), a=conv(draw, width, 8, 3)),
        width + 8,
        side,
    )


def spatial(draw, width, side):
    def run(s, x):
        return x * torch.sigmoid(
            s.a(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        )

    return (
        nn.Sequential(conv(draw, width, width, 1), Part(run, a=nn.Conv2d(2, 1, 3, padding=1))),
        width,
        side,
    )


def normed(draw, width, side):
    norm = draw.choice((nn.GroupNorm(1, width), Channels(nn.LayerNorm(width))))
    return nn.Sequential(nn.Conv2d(width, width, 1), norm), width, side


class Channels(nn.Module):
    """A norm over the last axis for maps."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def padded(draw, width, side):
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, 16, 2)), 16, side


KINDS = (
    *(
        plain,
        plain,
        depthwise,
        grouped,
        residual,
        inplace_residual,
        squeeze,
        split,
        sliced_sum,
        shuffled,
        dense,
    ),
    *(scaled, gated, pooled, decoder, spatial, normed, padded),
)
