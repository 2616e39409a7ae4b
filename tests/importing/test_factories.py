"""Arguments that the command line gives to functions of the user's own code."""

import pytest
from torch import nn

from fertool.config.importing import ImportConfig
from fertool.errors import UsageError
from fertool.importing import import_network
from fertool.importing.factories import build_with_factory, parse_argument

CODE = """
from torch import nn

def build(width: int = 4, kernel=(3, 3), bias=True, name="relu", num_classes=2):
    assert isinstance(width, int) and isinstance(kernel, tuple) and isinstance(bias, bool)
    assert name == "7", name
    return nn.Sequential(
        nn.Conv2d(1, width, kernel, bias=bias), nn.ReLU(), nn.Flatten(), nn.LazyLinear(num_classes)
    )

def build_anything(**options):
    return nn.Linear(**options)
"""


@pytest.fixture
def code(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CODE)
    return path


def test_text_becomes_the_value_that_the_factory_expects(code):
    arguments = {"width": "6", "kernel": "(1, 3)", "bias": "false", "name": "7"}
    module = build_with_factory(f"{code}:build", 5, arguments)
    assert module[0].weight.shape == (6, 1, 1, 3)
    assert module[0].bias is None


def test_a_factory_of_any_options_gets_all_of_them(code):
    module = build_with_factory(
        f"{code}:build_anything", 5, {"in_features": "3", "out_features": "2"}
    )
    assert isinstance(module, nn.Linear)
    assert module.weight.shape == (2, 3)


def test_an_argument_that_the_factory_lacks_is_named_with_the_nearest(code):
    with pytest.raises(UsageError, match="'widht'") as error:
        build_with_factory(f"{code}:build", None, {"widht": "6"})
    assert "did you mean 'width'" in error.value.hint


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_files_that_hold_their_network_take_no_arguments(tmp_path, suffix):
    path = tmp_path / f"network{suffix}"
    path.touch()
    with pytest.raises(UsageError, match="``arch_arg``"):
        import_network(str(path), ImportConfig(arch_args={"width": "3"}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("True", True),
        ("no", "no"),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("relu", "relu"),
        ("__import__('os')", "__import__('os')"),
        ("(" * 500, "(" * 500),
        (2, 2),
    ],
)
def test_what_a_text_means(text, value):
    assert parse_argument(text) == value
