"""Networks and images that every format is tried with."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "exporting")]

from dynamic_networks import dynamic_network
from settled import patterns, settled

from fertool.config.quantization import QuantizeConfig
from fertool.quant import quantize_model
from fertool.spec import InputSpec


@pytest.fixture(scope="session")
def networks():
    """Return (spec, module) of a float, a quantized and a dynamic network."""
    spec, module, data = settled("mobilenet_v3_small", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    return {
        "float": (spec, module),
        "int8": (replace(spec, quant=quant), integer),
        "dynamic": dynamic_network(InputSpec(size=32)),
    }


@pytest.fixture(scope="session")
def images():
    """Return images uint8 [21, 1, 32, 32] of the classes that the networks know."""
    return patterns(21, seed=2).images
