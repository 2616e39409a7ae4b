"""Networks of torchvision and timm, where these packages are installed.

What is said where they are not.
"""

from importlib.util import find_spec

import pytest
import torch

from fertool.config.importing import ImportConfig
from fertool.errors import UsageError
from fertool.importing import import_network
from fertool.importing.libraries import convert_stem_to_gray_

SMALL = {"torchvision": "squeezenet1_1", "timm": "lcnet_035"}


@pytest.mark.parametrize("library", SMALL)
def test_networks_of_libraries_are_imported_with_their_own_preprocessing(library):
    pytest.importorskip(library, exc_type=ImportError)
    found = import_network(
        f"{library}:{SMALL[library]}", ImportConfig(classes=("a", "b", "c"), input_size=64)
    )
    assert found.spec.input.mean == (0.485, 0.456, 0.406)
    assert found.spec.classes == ("a", "b", "c")
    assert found.difference <= 1e-5


@pytest.mark.parametrize("library", SMALL)
def test_a_library_that_is_not_installed_is_named_with_the_command_that_installs_it(library):
    if find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(UsageError, match=f"{library} is not installed") as error:
        import_network(f"{library}:{SMALL[library]}")
    assert "pip install" in error.value.hint


def test_a_stem_for_colours_reads_gray_by_the_sum_of_its_weights():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    gray = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = module(gray.expand(-1, 3, -1, -1))
        torch.testing.assert_close(convert_stem_to_gray_(module)(gray), expected)
