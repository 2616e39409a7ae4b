"""Networks that behave a little like trained ones: a few steps of training on patterns."""

from dataclasses import replace

import torch
from torch import nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.graph.network import Network
from fertool.models import create
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def patterns(count, channels=1, size=32, seed=0):
    """One smooth pattern per class, shifted in brightness and covered with noise."""
    coarse = torch.rand(len(CLASSES), channels, 5, 5, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[labels]
    brightness = torch.rand(count, 1, 1, 1, generator=generator) * 40 - 20
    pixels = 40 + 180 * smooth + brightness + 8 * torch.randn(smooth.shape, generator=generator)
    return FaceDataset(
        pixels.round().clamp(0, 255).to(torch.uint8), labels, CLASSES, "train", "0" * 64
    )


def settled(arch, channels=1, size=32, steps=12, count=70, **args):
    """Return (spec, module, data): a network that has learnt to tell the patterns apart."""
    torch.manual_seed(0)
    input = InputSpec(channels, size, (129 / 255,) * channels, (64 / 255,) * channels)
    spec, module = without_dropout(*create(arch, args, input, CLASSES))
    data = patterns(count, channels, size)
    images = to_input(data.images, input)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    module.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images), data.labels).backward()
        optimizer.step()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        module(images)
    return spec, module.eval(), data


def without_dropout(spec, network):
    """Return the network and its spec with dropout and stochastic depth that drop nothing."""
    random = [node for node in network.graph.nodes if node.operator.random]
    quiet = Network(
        network.graph.replace_nodes({node.name: [node.with_args(p=0.0)] for node in random}),
        network.image,
    )
    quiet.load_state_dict(network.state_dict(), assign=True)
    return replace(spec, graph=quiet.graph), quiet
