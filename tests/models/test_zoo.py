import random

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from fertool.errors import UsageError
from fertool.models.registry import get_architecture

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


def random_widths(arch, seed, **args):
    """Every width drawn on its own from 1 to a third of the default."""
    draw = random.Random(seed)
    with torch.device("meta"):
        default = get_architecture(arch)(None, **args).widths
    return {key: draw.randint(1, max(1, count // 3)) for key, count in default.items()}


@all_architectures
def test_parameter_count_with_three_channels_and_seven_classes(arch):
    with torch.device("meta"):
        assert parameters(get_architecture(arch)(None, in_channels=3, num_classes=7)) == PARAMETERS[arch]


@all_architectures
@pytest.mark.parametrize("reduced", [False, True])
def test_logits_at_any_size_and_width(arch, reduced):
    module = get_architecture(arch)(random_widths(arch, 1) if reduced else None, num_classes=8, in_channels=3).eval()
    with torch.no_grad():
        assert module(torch.ones(2, 3, 48, 48)).shape == (2, 8)
        assert module(torch.ones(1, 3, 224, 224)).shape == (1, 8)


@all_architectures
def test_every_width_can_be_chosen_on_its_own(arch):
    widths = random_widths(arch, 2, stem_stride=1)
    module = get_architecture(arch)(widths, stem_stride=1)
    assert module.widths == widths
    logits = module(torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0)))
    logits.sum().backward()
    assert logits.shape == (3, 7)
    assert all(parameter.grad is not None for parameter in module.parameters())


@all_architectures
def test_one_channel_everywhere_still_builds(arch):
    widths = dict.fromkeys(random_widths(arch, 0), 1)
    assert get_architecture(arch)(widths).eval()(torch.ones(1, 1, 48, 48)).shape == (1, 7)


@all_architectures
def test_default_widths_give_the_default_network_and_each_key_counts(arch):
    build = get_architecture(arch)
    with torch.device("meta"):
        module = build(None)
        assert parameters(build(module.widths)) == parameters(module)
        for key in list(module.widths)[:: max(1, len(module.widths) // 2)]:
            assert parameters(build({**module.widths, key: module.widths[key] - 1})) < parameters(module), key


@all_architectures
def test_width_keys_are_module_paths(arch):
    module = get_architecture(arch)(random_widths(arch, 4))
    for key, count in module.widths.items():
        made = [layer for layer in module.get_submodule(key).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        assert count in {layer.weight.shape[0] for layer in made}, key


@all_architectures
def test_missing_unknown_and_impossible_widths_are_all_named(arch):
    widths = random_widths(arch, 5)
    first, second, *_ = widths
    del widths[first]
    # A width of 0 is what a block that is gone has.
    widths |= {second: -1, "features.99": 3}
    with pytest.raises(ValueError) as error:
        get_architecture(arch)(widths)
    for part in (f"{first} is missing", f"{second} is -1", "features.99 is unknown"):
        assert part in str(error.value)


@all_architectures
@pytest.mark.parametrize("training", [False, True])
def test_symbolic_tracing(arch, training):
    module = get_architecture(arch)(random_widths(arch, 6), stem_stride=1).train(training)
    traced = symbolic_trace(module)
    images = torch.randn(4, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    expected = module(images)
    torch.manual_seed(7)
    torch.testing.assert_close(traced(images), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_shuffle_traced_by_example_takes_any_batch():
    module = get_architecture("shufflenet_v2_x0_5")(random_widths("shufflenet_v2_x0_5", 8)).eval()
    images = torch.randn(5, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    frozen = torch.jit.trace(module, images[:2], check_trace=False)
    torch.testing.assert_close(frozen(images), module(images))


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
        module = get_architecture(arch)(None, **args).eval()
        last = {"resnet": "layer1", "shufflenet": "conv5", "eff": "ffe2", "ean": "layer3"}
        name = last.get(arch.split("_")[0].rstrip("0123456789"), "features")
        seen = []
        module.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
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
        get_architecture(arch)(None, **args)


def test_micro_expnet_is_the_published_size_and_has_mobilenets_trunk():
    build = get_architecture("micro_expnet")
    with torch.device("meta"):
        module, trunk = build(None), get_architecture("mobilenet_v3_small")(None).features
    assert parameters(module) <= 1_200_000
    assert {f"features.{name}": tensor.shape for name, tensor in trunk.state_dict().items()}.items() <= {
        name: tensor.shape for name, tensor in module.state_dict().items()
    }.items()
    # The source's own estimate for a reduction of 4 is 2 C^2 / r, about 166 K.
    assert parameters(build(None, se_reduction=4).se) == 2 * 576 * 576 // 4 + 576 // 4 + 576


@all_architectures
def test_only_what_belongs_to_a_block_may_have_no_width(arch):
    widths = random_widths(arch, 5)
    first, *_ = widths
    with pytest.raises(ValueError, match=f"{first} is 0"):
        get_architecture(arch)({**widths, first: 0})
