import pytest
import torch

from fertool.models.architecture import get_architecture
from fertool.models.architectures.eff_resnet import FineGrainedExtraction
from fertool.models.initial_weights import load_initial_weights


@pytest.mark.parametrize("subsets", [1, 3, 4])
def test_the_module_computes_the_sources_equations(subsets):
    torch.manual_seed(0)
    module, x = FineGrainedExtraction(2, subsets), torch.rand(3, 2 * subsets, 5, 5)
    parts = module.conv(x).split(2, dim=1)

    def left(i):
        return module.left[i](parts[i] + left(i - 1) if i > 0 else parts[i])

    def right(i):
        return module.right[i](parts[i] + right(i + 1) if i < subsets - 1 else parts[i])

    expected = torch.cat([left(i) + right(i) for i in range(subsets)], dim=1) + x
    torch.testing.assert_close(module(x), expected)


def test_a_published_resnet18_gives_stem_and_two_stages(tmp_path):
    args = {"width_mult": 0.25, "stem_kernel": 7}
    source = get_architecture("resnet18")(num_classes=1000, in_channels=3, **args)
    module = get_architecture("eff_resnet18")(**args)
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    notes = load_initial_weights(module, tmp_path / "resnet18.pth")
    assert [note.split(":")[0] for note in notes] == [
        "conv1.weight",
        "fc",
        "ffe1",
        "ffe2",
        "layer3",
        "layer4",
    ]
    taken = module.state_dict()
    for name, tensor in source.state_dict().items():
        if name.startswith(("bn1", "layer1", "layer2")):
            assert torch.equal(taken[name], tensor), name
