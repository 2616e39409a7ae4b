import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fertool import cost, models
from fertool.spec import InputSpec

RGB = InputSpec(3, 64, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "micro_expnet", "ean"]
)
def test_macs_are_half_of_the_flops_that_torch_counts(arch):
    spec, module = models.create(arch, {}, RGB, ("a", "b"))
    module.eval()
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, 64, 64))
    counted = cost.count(module, spec.input)
    assert 2 * counted.macs == counter.get_total_flops()
    assert counted.params == sum(p.numel() for p in module.parameters())


def test_counting_leaves_the_module_as_it_was():
    _, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), ("a", "b"))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    cost.count(module, InputSpec())
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
