"""How much the output minds a change of each channel's weights and activation: traces of the Hessian."""

from fertool.hessian.layers import weighted_layers
from fertool.hessian.sensitivity import Hessian, LayerSensitivity, Method, Sensitivity
from fertool.hessian.traces import TraceConfig, estimate

__all__ = [
    "Hessian",
    "LayerSensitivity",
    "Method",
    "Sensitivity",
    "TraceConfig",
    "estimate",
    "weighted_layers",
]
