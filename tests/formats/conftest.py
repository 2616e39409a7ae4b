"""Networks and images that every format is tried with."""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "exporting")]

from dynamic_networks import dynamic_network
from settled import patterns, settled

from fertool.config.quantization import QuantizeConfig
from fertool.gate_spec import GateSpec
from fertool.models.cascade_network import CascadeNetwork
from fertool.quant import quantize_dynamic, quantize_model
from fertool.spec import InputSpec


@pytest.fixture(scope="session")
def networks():
    """Return (spec, module) of a float, quantized, dynamic, and quantized dynamic network."""
    spec, module, data = settled("mobilenet_v3_small", width_mult=0.25)
    config = QuantizeConfig(calibration_images=32)
    quant, integer = quantize_model(spec, module, data, config)
    # Of the same network twice, so that its logits do not depend on the choice.
    cascade = CascadeNetwork([module, copy.deepcopy(module)], (3.0,), (0.5, 0.5)).eval()
    gates = GateSpec((spec.graph, spec.graph), 0, cascade.shares, thresholds=cascade.thresholds)
    dynamic = replace(spec, gates=gates)
    cascade_quant, integer_cascade = quantize_dynamic(dynamic, cascade, data, config)
    return {
        "float": (spec, module),
        "int8": (replace(spec, quant=quant), integer),
        "int8 cascade": (replace(dynamic, quant=cascade_quant), integer_cascade),
        "dynamic": dynamic_network(InputSpec(size=32)),
    }


@pytest.fixture(scope="session")
def images():
    """Return images uint8 [21, 1, 32, 32] of the classes that the networks know."""
    return patterns(21, seed=2).images
