"""The gate of a quantized dynamic network: integer weights, which are unpacked when they run.

A gate has two thousand weights. Its statistics would need a quantizer each, and rounding them costs
more time than integers save there: only the file gets smaller.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool import cost
from fertool.models.dynamic_network import ImageGate
from fertool.models.quantized import IntegerTensors

GATE_LAYERS = ("gate.fc1", "gate.fc2")
"""The layers of a gate by their names in a dynamic network, as a header has them."""
_BIAS_SCALE = 2.0**-12
"""The unit of a bias, relative to the scale of the weights."""


class GateLinear(IntegerTensors, nn.Linear):  # type: ignore[misc]  # a bias there may be None
    """A linear layer of integer weights that computes with floats: [N, in] to [N, out]."""

    def __init__(self, layer: nn.Linear) -> None:
        # Without memory: `hold_integers` puts buffers in the place of the parameters.
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self.hold_integers(layer.weight, _BIAS_SCALE)

    def forward(self, input: Tensor) -> Tensor:
        """Return the product with float32 inputs."""
        return nn.functional.linear(input, self.float_weight(), self.float_bias())


class QuantizedGate(ImageGate):
    """A gate whose layers hold integers."""

    def __init__(self, gate: ImageGate) -> None:
        with torch.device("meta"):
            super().__init__(gate.fc2.out_features, gate.fc1.out_features)
        # The header counts what was learned, which integers are no longer.
        self.float_params = cost.count_parameters(gate)
        self.measures = gate.measures
        self.standardise = gate.standardise
        self.fc1 = GateLinear(gate.fc1)
        self.fc2 = GateLinear(gate.fc2)
        self.train(gate.training)

    @property
    def layers(self) -> tuple[GateLinear, GateLinear]:
        """Both layers, in running order."""
        assert isinstance(self.fc1, GateLinear)
        assert isinstance(self.fc2, GateLinear)
        return self.fc1, self.fc2

    def folded(self) -> ImageGate:
        """Return a float gate for inference, with the standardization in its first layer."""
        gate = ImageGate(self.fc2.out_features, self.fc1.out_features)
        gate.measures = self.measures
        gate.standardise = self.standardise
        for layer, source in zip((gate.fc1, gate.fc2), self.layers, strict=True):
            layer.load_state_dict({"weight": source.float_weight(), "bias": source.float_bias()})
        return gate.folded()
