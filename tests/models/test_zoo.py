import pytest
import torch
from graphs import network_of

from fertool.errors import UsageError
from fertool.models import create
from fertool.models.architecture import get_architecture
from fertool.spec import InputSpec

PARAMETERS = {
    "resnet18": 11_180_103,
    "resnet50": 23_522_375,
    "mobilenet_v2": 2_232_839,
    "mobilenet_v3_small": 1_525_031,
    "mobilenet_v3_large": 4_210_999,
    "shufflenet_v2_x0_5": 348_967,
    "shufflenet_v2_x1_0": 1_260_779,
    "efficientnet_b0": 4_016_515,
    "micro_expnet": 1_187_783,
    "eff_resnet18": 1_127_879,
    "ean": 680_112,
    "nano_resnet": 574_727,
}
all_architectures = pytest.mark.parametrize("arch", PARAMETERS)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@all_architectures
def test_parameter_count_with_three_channels_and_seven_classes(arch):
    with torch.device("meta"):
        assert parameters(get_architecture(arch)(in_channels=3, num_classes=7)) == PARAMETERS[arch]


@all_architectures
def test_logits_at_any_size(arch):
    with torch.device("meta"):
        module = get_architecture(arch)(num_classes=8, in_channels=3).eval()
        assert module(torch.ones(2, 3, 48, 48)).shape == (2, 8)
        assert module(torch.ones(1, 3, 224, 224)).shape == (1, 8)


@all_architectures
def test_its_graph_computes_and_learns_what_the_module_does(arch):
    torch.manual_seed(0)
    module = get_architecture(arch)(num_classes=7, in_channels=1, width_mult=0.25)
    network = network_of(module, (1, 32, 32))
    assert set(network.state_dict()) <= set(module.state_dict())
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        results = []
        for part in (module.train(training), network.train(training)):
            torch.manual_seed(7)
            results.append(part(images))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
        if training:
            for result in results:
                result.square().sum().backward()
    gradients = dict(module.named_parameters())
    for name, parameter in network.named_parameters():
        expected = gradients[name].grad
        assert (parameter.grad - expected).norm() <= 1e-3 * expected.norm() + 1e-5, name


@all_architectures
def test_every_argument_has_a_default_and_a_file_names_it(arch):
    spec, network = create(arch, {}, InputSpec(), ("a", "b"))
    assert spec.graph == network.graph
    assert network.shapes[spec.graph.output] == (2,)
    assert None not in spec.arch_args.values()


@pytest.mark.parametrize(
    ("arch", "args", "size"),
    [
        ("resnet18", {"stem_kernel": 3, "stem_stride": 1, "stem_pool": False}, 48),
        ("resnet18", {"stem_kernel": 3, "stem_stride": 1}, 24),
        ("resnet50", {}, 12),
        ("mobilenet_v2", {"stem_stride": 1, "early_stride": 1}, 6),
        ("mobilenet_v2", {"stem_stride": 1}, 3),
        ("mobilenet_v3_small", {"stem_stride": 1, "early_stride": 1}, 6),
        ("mobilenet_v3_large", {"early_stride": 1}, 3),
        ("efficientnet_b0", {}, 2),
        ("shufflenet_v2_x1_0", {"stem_stride": 1, "stem_pool": False}, 6),
        ("micro_expnet", {"stem_stride": 1}, 3),
        ("eff_resnet18", {"stem_kernel": 3, "stem_stride": 1}, 12),
        ("eff_resnet18", {}, 6),
        ("ean", {"stem_stride": 1}, 6),
        ("ean", {}, 3),
    ],
)
def test_strides_give_the_map_they_promise(arch, args, size):
    with torch.device("meta"):
        module = get_architecture(arch)(**args).eval()
        last = {"resnet": "layer1", "shufflenet": "conv5", "eff": "ffe2", "ean": "layer3"}
        name = last.get(arch.split("_")[0].rstrip("0123456789"), "features")
        seen = []
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output: seen.append(output.shape[-1])
        )
        module(torch.empty(1, 1, 48, 48))
    assert seen == [size]


@pytest.mark.parametrize(
    ("arch", "args"),
    [
        ("mobilenet_v2", {"stem_stride": 3}),
        ("efficientnet_b0", {"early_stride": 0}),
        ("resnet18", {"stem_kernel": 4}),
        ("shufflenet_v2_x1_0", {"width_mult": 0.0}),
        ("mobilenet_v3_large", {"dropout": 1.0}),
        ("mobilenet_v3_small", {"activation": "gelu"}),
        ("efficientnet_b0", {"activation": "swish"}),
        ("efficientnet_b0", {"stochastic_depth": -0.1}),
        ("micro_expnet", {"se_reduction": 0}),
        ("eff_resnet18", {"stem_kernel": 2}),
        ("eff_resnet18", {"subsets": 0}),
        ("ean", {"stem_stride": 4}),
    ],
)
def test_a_bad_argument_is_named(arch, args):
    with pytest.raises(UsageError, match=f"{next(iter(args))}={next(iter(args.values()))}"):
        get_architecture(arch)(**args)


def test_micro_expnet_is_the_published_size_and_has_mobilenets_trunk():
    build = get_architecture("micro_expnet")
    with torch.device("meta"):
        module, trunk = build(), get_architecture("mobilenet_v3_small")().features
    assert parameters(module) <= 1_200_000
    assert {
        f"features.{name}": tensor.shape for name, tensor in trunk.state_dict().items()
    }.items() <= {name: tensor.shape for name, tensor in module.state_dict().items()}.items()
    # The source's own estimate for a reduction of 4 is 2 C^2 / r, about 166 K.
    assert parameters(build(se_reduction=4).se) == 2 * 576 * 576 // 4 + 576 // 4 + 576
