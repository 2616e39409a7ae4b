"""Sensitivity of the output to each channel's weights and activation: traces of the Hessian."""

from fertool.hessian.layer_runs import weighted_layers
from fertool.hessian.sensitivity import Hessian, LayerSensitivity, Method, Sensitivity
from fertool.hessian.traces import TraceConfig, estimate_traces

__all__ = [
    "Hessian",
    "LayerSensitivity",
    "Method",
    "Sensitivity",
    "TraceConfig",
    "estimate_traces",
    "weighted_layers",
]
