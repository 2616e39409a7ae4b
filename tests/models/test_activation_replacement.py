from dataclasses import replace

import pytest
import torch
from graphs import narrowed, network_of
from torch import nn

from fertool.errors import FertoolError
from fertool.gate_spec import GateSpec
from fertool.models import create, replace_activations, with_random_weights
from fertool.spec import InputSpec, Metrics, Spec

CLASSES = ("a", "b", "c")
COSTLY = {"hardswish", "silu"}
FAMILIES = pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "mobilenet_v3_large", "micro_expnet", "efficientnet_b0"]
)


def network(arch, **args):
    torch.manual_seed(0)
    return create(arch, {"width_mult": 0.25, **args}, InputSpec(1, 32), CLASSES)


def images(count=3):
    return torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@FAMILIES
def test_it_has_the_same_weights_and_no_costly_activation(arch):
    spec, module = network(arch)
    changed, friendly = replace_activations(spec, module)
    assert operators(spec) & COSTLY
    assert not operators(changed) & COSTLY
    assert changed.graph == friendly.graph
    assert [node.name for node in changed.graph.nodes] == [node.name for node in spec.graph.nodes]
    before, after = module.state_dict(), friendly.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert not torch.allclose(module.eval()(images()), friendly(images()))
    assert replace_activations(changed, friendly) is None


def test_a_pruned_network_keeps_its_channels():
    spec, module = network("mobilenet_v3_small")
    pruned = with_random_weights(narrowed(module, "features.2.block.0.0", 8))
    changed, friendly = replace_activations(replace(spec, graph=pruned.graph), pruned)
    assert (
        changed.graph.channels
        == friendly.graph.channels
        == pruned.graph.channels
        != spec.graph.channels
    )


def test_there_may_be_nothing_to_replace():
    assert replace_activations(*network("mobilenet_v2")) is None


def test_any_network_can_be_made_friendly():
    parts = (
        nn.Conv2d(1, 4, 3),
        nn.GELU(),
        nn.Conv2d(4, 4, 1),
        nn.Mish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    module = network_of(nn.Sequential(*parts, nn.Linear(4, 3)), (1, 32, 32))
    metrics = Metrics("val", 10, 0.5, (0.2, 0.8), 0.4)
    spec = Spec("any", {}, module.graph, InputSpec(1, 32), CLASSES, metrics=metrics)
    changed, friendly = replace_activations(spec, module)
    assert [node.op for node in changed.graph.nodes][:4] == ["conv2d", "relu", "conv2d", "relu"]
    # What was measured was another network's.
    assert changed.metrics is None
    assert all(
        torch.equal(tensor, friendly.state_dict()[name])
        for name, tensor in module.state_dict().items()
    )


def test_a_dynamic_network_is_refused():
    spec, module = network("mobilenet_v2")
    dynamic = replace(spec, gates=GateSpec((spec.graph,), 4, (1.0,)))
    with pytest.raises(FertoolError, match="cannot be given other activations"):
        replace_activations(dynamic, module)


def operators(spec):
    return {node.op for node in spec.graph.nodes}
