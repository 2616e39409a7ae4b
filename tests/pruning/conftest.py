import masking
import pytest


@pytest.fixture
def randomise_norms():
    return masking.randomise_norms


@pytest.fixture
def zero_removed():
    """Set all that a plan removes to 0, in a copy of the network."""
    return lambda network, plan: masking.masked(network, plan.kept)
