import pytest

from fertool.errors import UsageError
from fertool.models.architecture import (
    architecture_names,
    check_arch_args,
    get_architecture,
    resolve_arch_args,
)


def test_small_images_get_their_own_defaults_and_arguments_win():
    assert resolve_arch_args("mobilenet_v2", {}, 224)["stem_stride"] == 2
    assert resolve_arch_args("mobilenet_v2", {}, 48)["stem_stride"] == 1
    assert resolve_arch_args("mobilenet_v2", {"stem_stride": "2"}, 48)["stem_stride"] == 2


def test_text_becomes_the_type_of_the_default():
    resolved = resolve_arch_args(
        "resnet18", {"width_mult": "0.5", "stem_pool": "false", "stem_kernel": "3"}, 224
    )
    assert (resolved["width_mult"], resolved["stem_pool"], resolved["stem_kernel"]) == (
        0.5,
        False,
        3,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stem_stride": "two"}, "``arch_arg=stem_stride=two``: resnet18 wants int"),
        ({"stem_pool": "maybe"}, "``arch_arg=stem_pool=maybe``: resnet18 wants bool"),
        ({"stem_strides": "2"}, "unknown ``arch_arg`` of resnet18 'stem_strides'"),
    ],
)
def test_a_wrong_argument_is_named(given, message):
    with pytest.raises(UsageError, match=message):
        resolve_arch_args("resnet18", given, 48)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stem_stride", True),
        ("stem_stride", 2.0),
        ("stem_stride", "2"),
        ("dropout", False),
        ("stem_pool", 1),
    ],
)
def test_an_argument_of_a_header_has_the_very_type_of_its_default(key, value):
    check_arch_args("resnet18", {**resolve_arch_args("resnet18", {}, 48), "width_mult": 1})
    with pytest.raises(ValueError, match=f"{key} is .*, expected"):
        check_arch_args("resnet18", {key: value})


def test_an_unknown_name_lists_the_zoo():
    with pytest.raises(UsageError) as caught:
        get_architecture("resnet19")
    assert "did you mean 'resnet18'" in caught.value.hint
    assert all(name in caught.value.hint for name in architecture_names())


ANOTHER = """
from torch import nn

from fertool.models import small_input


@small_input(depth=1)
def Member(*, num_classes=7, in_channels=1, depth=2):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(depth), nn.Linear(depth, num_classes))
"""


def test_an_installed_package_adds_its_architectures(install):
    install("fertool.architectures", "tiny", ANOTHER)
    assert "tiny" in architecture_names()
    assert resolve_arch_args("tiny", {"depth": "3"}, 48) == {"depth": 3}
    assert resolve_arch_args("tiny", {}, 48) == {"depth": 1}
    assert resolve_arch_args("tiny", {}, 224) == {"depth": 2}
    assert len(get_architecture("tiny")(num_classes=4)) == 3


def test_a_broken_package_is_one_error(install):
    install("fertool.architectures", "tiny", "import a_package_that_is_not_there")
    with pytest.raises(UsageError, match="its package does not load"):
        get_architecture("tiny")
