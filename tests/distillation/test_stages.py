import pytest
import torch
from torch import nn

from fertool import models
from fertool.distillation.stages import capture_feature_maps, find_stages
from fertool.graph.capture import capture
from fertool.spec import InputSpec

CLASSES = ("happy", "neutral", "sad")
COLOUR = InputSpec(
    channels=3, size=112, mean=(124 / 255, 116 / 255, 104 / 255), std=(0.229, 0.224, 0.225)
)
BLOCKS = {
    "resnet18": ["relu", "layer1.1.relu", "layer2.1.relu", "layer3.1.relu", "layer4.1.relu"],
    # Its blocks begin with a 1 x 1 convolution at the resolution of the stage before.
    "resnet50": ["relu", "layer1.2.relu", "layer2.3.relu", "layer3.5.relu", "layer4.2.relu"],
    "shufflenet_v2_x1_0": [
        "conv1.2",
        "maxpool",
        "stage2.3.reshape.1",
        "stage3.7.reshape.1",
        "conv5.2",
    ],
    "micro_expnet": ["features.1.add", "features.3.add", "features.8.add", "se.mul"],
    "mobilenet_v2": [
        "features.1.add",
        "features.3.add",
        "features.6.add",
        "features.13.add",
        "features.18.2",
    ],
    "ean": ["stem.2", "layer1.1.relu", "layer2.2.relu", "layer3.3.relu"],
    "eff_resnet18": ["relu", "layer1.1.relu", "ffe2.add.10"],
}


@pytest.mark.parametrize("arch", BLOCKS)
def test_the_last_block_of_each_resolution_is_found(arch):
    _, module = models.create(arch, {"width_mult": 0.125}, InputSpec(), CLASSES)
    stages = find_stages(module.train())
    assert [stage.name for stage in stages] == BLOCKS[arch]
    assert [stage.size for stage in stages] == sorted(
        {stage.size for stage in stages}, reverse=True
    )
    assert module.training


def sizes_of_convolutions(module, input):
    """Return the sizes of the maps that come out of the convolutions."""
    sizes = set()

    def see(layer, images, maps):
        sizes.add(tuple(maps.shape[2:]))

    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(see) for layer in convolutions]
    with torch.no_grad():
        module(torch.zeros(1, input.channels, input.size, input.size))
    for hook in hooks:
        hook.remove()
    return sizes


@pytest.mark.parametrize("arch", models.architecture_names())
def test_every_network_of_the_zoo_has_maps_at_several_depths_of_any_input(arch):
    for input in (InputSpec(), COLOUR):
        _, module = models.create(arch, {}, input, CLASSES)
        stages = find_stages(module.eval())
        # A network without strides has maps of one size.
        assert len(stages) >= min(3, len(sizes_of_convolutions(module, input)))
        with (
            capture_feature_maps(module, [stage.name for stage in stages]) as maps,
            torch.no_grad(),
        ):
            module(torch.zeros(2, input.channels, input.size, input.size))
        assert {name: tuple(value.shape) for name, value in maps.items()} == {
            stage.name: (2, stage.channels, *stage.size) for stage in stages
        }


def test_capturing_feature_maps_does_not_change_the_network():
    _, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with capture_feature_maps(module, [find_stages(module)[0].name]) as maps:
        pass
    module(torch.zeros(2, 1, 48, 48))
    assert not maps
    assert not module.listeners
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    module.eval()
    find_stages(module)
    after = module.state_dict()
    assert all(
        torch.equal(after[name], before[name])
        for name in before
        if "running" not in name and "num_" not in name
    )


def test_a_part_that_runs_more_than_once_ends_with_its_last_run_and_single_pixels_are_no_stages():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down, self.act = (
                nn.Conv2d(1, 4, 3, 2, 1),
                nn.Conv2d(4, 4, 3, 2, 1),
                nn.ReLU(),
            )
            self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.pool(self.act(self.down(self.act(self.stem(x))))).flatten(1))

    def stages(module):
        return find_stages(capture(module, (1, 16, 16)).network((1, 16, 16)))

    assert [(stage.name, stage.size) for stage in stages(Shared())] == [
        ("stem", (8, 8)),
        ("act.1", (4, 4)),
    ]
    assert stages(nn.Sequential(nn.Flatten(), nn.Linear(256, 3))) == ()
