from dataclasses import replace

import pytest
import torch
from torch import nn

from fertool.errors import FertoolError
from fertool.models import build, create, int8_friendly, registry
from fertool.models.registry import get_architecture
from fertool.spec import InputSpec, Spec

CLASSES = ("a", "b", "c")
COSTLY = (nn.Hardswish, nn.SiLU)
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
    changed, friendly = int8_friendly(spec, module)
    assert any(isinstance(part, COSTLY) for part in module.modules())
    assert not any(isinstance(part, COSTLY) for part in friendly.modules())
    assert changed.arch_args == {**spec.arch_args, "activation": "relu"}
    before, after = module.state_dict(), friendly.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        assert not torch.allclose(module.eval()(images()), friendly(images()))
    assert int8_friendly(changed, friendly) is None


@FAMILIES
def test_a_file_from_before_the_argument_is_the_network_that_it_was(arch):
    spec, module = network(arch)
    old = replace(spec, arch_args={key: value for key, value in spec.arch_args.items() if key != "activation"})
    again = build(old)
    again.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(images()), module.eval()(images()))


def test_a_pruned_network_keeps_its_widths():
    spec, _ = network("mobilenet_v3_small")
    pruned = replace(spec, widths={**spec.widths, "features.2.block.0": 8})
    changed, friendly = int8_friendly(pruned, build(pruned))
    assert changed.widths == friendly.widths == pruned.widths


def test_there_may_be_nothing_to_replace():
    assert int8_friendly(*network("mobilenet_v2")) is None


def test_an_architecture_without_the_argument_is_named(monkeypatch):
    def swish(widths=None, *, num_classes=7, in_channels=1):
        return nn.Sequential(nn.Conv2d(in_channels, num_classes, 1), nn.Hardswish())

    monkeypatch.setitem(registry._ARCHITECTURES, "swish", swish)
    spec = Spec("swish", {}, {}, InputSpec(1, 32), CLASSES)
    with pytest.raises(FertoolError, match="swish has HardSwish or SiLU, but no argument 'activation'"):
        int8_friendly(spec, get_architecture("swish")())
