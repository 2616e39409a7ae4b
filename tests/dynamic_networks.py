"""Dynamic networks whose profiles all get some of the images, with random weights."""

from dataclasses import replace

import torch
from graphs import narrowed
from torch import nn

from fertool.gate_spec import GateSpec
from fertool.models import create, with_random_weights
from fertool.models.cascade_network import CascadeNetwork, margins_of
from fertool.models.dynamic_network import DynamicNetwork, ImageGate
from fertool.spec import InputSpec


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
