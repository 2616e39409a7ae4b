"""Networks that behave a little like trained ones: a few steps of training on patterns."""

from dataclasses import replace

import torch
from graphs import narrowed
from torch import nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.gate_spec import GateSpec
from fertool.graph.network import Network
from fertool.models import create, with_random_weights
from fertool.models.cascade_network import CascadeNetwork, margins_of
from fertool.models.dynamic_network import DynamicNetwork, ImageGate
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


def dynamic_network(input=InputSpec(size=48)):
    """Return (spec, module): three profiles of a network, all of which are chosen."""
    torch.manual_seed(0)
    spec, wide = create(
        "mobilenet_v3_small", {"width_mult": 0.25}, input, ("angry", "happy", "sad")
    )
    narrower = [narrowed(wide, "classifier.0", channels) for channels in (64, 8)]
    networks = [wide, *(with_random_weights(network) for network in narrower)]
    torch.manual_seed(9)  # at which each profile gets some of the images
    gate = ImageGate(3)
    gate(torch.randn(32, 1, input.size, input.size))
    nn.init.normal_(gate.fc2.weight)
    # Between them: at the mean image all three are alike.
    with torch.no_grad():
        gate.eval().fc2.bias.sub_(gate(torch.randn(32, 1, input.size, input.size)).mean(0))
    module = DynamicNetwork(gate, networks, (0.3, 0.3, 0.4)).eval()
    return replace(
        spec, gates=GateSpec(tuple(network.graph for network in networks), 44, module.shares)
    ), module


def cascade_network(input=InputSpec(size=48)):
    """Return (spec, module): the same profiles as a cascade in which each answers some images."""
    spec, dynamic = dynamic_network(input)
    module = CascadeNetwork(list(dynamic.networks), (0.0, 0.0), (0.3, 0.3, 0.4)).eval()
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(64, 1, input.size, input.size, generator=generator)
    with torch.no_grad():
        margins = [margins_of(network(images)) for network in module.networks[1:]]
    module.thresholds = tuple(float(margin.median()) for margin in margins)
    gates = replace(spec.gates, hidden=0, thresholds=module.thresholds)
    return replace(spec, gates=gates), module
