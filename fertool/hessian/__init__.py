"""How much the output minds a change of each channel's weights: Hessian traces without Hessian-vector products."""

from fertool.hessian.sensitivity import LayerSensitivity, Method, Sensitivity
from fertool.hessian.traces import estimate, weighted_layers

__all__ = ["LayerSensitivity", "Method", "Sensitivity", "estimate", "weighted_layers"]
