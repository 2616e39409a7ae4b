import pytest
import torch
from graphs import network_of
from torch import nn

from fertool.config.exporting import ExportConfig
from fertool.exporting import export_model
from fertool.models import create
from fertool.runtime.layer_times import time_layers
from fertool.spec import InputSpec


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_every_layer_with_weights_gets_its_time(arch):
    torch.manual_seed(0)
    spec, module = create(arch, {}, InputSpec(), ("a", "b", "c"))
    content = export_model(spec, module.eval(), ExportConfig(simplify=False))
    seconds = time_layers(content, runs=20, warmup=2)
    weighted = {
        name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
    }
    assert weighted <= set(seconds)
    assert set(seconds) - weighted <= {""}
    assert 1e-5 < sum(seconds.values()) < 1
    # What comes before the first layer is small: pixels become floats.
    assert seconds.get("", 0) < 0.5 * sum(seconds.values())


def test_a_layer_with_more_to_do_takes_longer():
    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            self.small, self.large = nn.Conv2d(1, 32, 1), nn.Conv2d(32, 64, 5, padding=2)
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(self.large(self.small(x)).mean((2, 3)))

    spec, _ = create("micro_expnet", {"width_mult": 0.25}, InputSpec(), ("a", "b", "c"))
    network = network_of(Uneven(), (1, 48, 48))
    seconds = time_layers(export_model(spec, network, ExportConfig(simplify=False)), runs=100)
    assert seconds["large"] > 5 * seconds["small"]
