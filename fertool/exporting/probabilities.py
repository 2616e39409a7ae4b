"""A softmax behind an ONNX graph."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper
from onnx.helper import make_node

from fertool.artifact.contract import PROBABILITIES


def add_softmax(model: ModelProto, temperature: float | None) -> ModelProto:
    """Return a graph whose first output is "probabilities", of logits divided by `temperature`."""
    result = ModelProto()
    result.CopyFrom(model)
    output = result.graph.output[0]
    logits = output.name
    if temperature is not None:
        divisor = numpy_helper.from_array(np.array(temperature, np.float32), "temperature")
        result.graph.initializer.append(divisor)
        scaled = f"{logits}/temperature"
        result.graph.node.append(make_node("Div", [logits, divisor.name], [scaled]))
        logits = scaled
    result.graph.node.append(make_node("Softmax", [logits], [PROBABILITIES], axis=1))
    output.name = PROBABILITIES
    return result
