"""Sensitivity of the output to each channel's weights and activation: traces of the Hessian."""

from fertool.hessian.layer_runs import weighted_layers
from fertool.hessian.traces import estimate_traces
from fertool.results.sensitivity import Hessian, LayerSensitivity, Sensitivity

__all__ = [
    "Hessian",
    "LayerSensitivity",
    "Sensitivity",
    "estimate_traces",
    "weighted_layers",
]
