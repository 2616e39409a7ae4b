"""Quantization: calibrated ranges, bits allocated under a budget, weights rounded by GPTQ, QAT."""

from __future__ import annotations

from fertool.quant.allocation import Allocation, BitEvaluator, allocate, load_allocation
from fertool.quant.allocation_problem import AllocationProblem, lower_bound, make_problem
from fertool.quant.dynamic_network import (
    convert_dynamic,
    describe_dynamic_fraction,
    dynamic_divergences,
    make_dynamic_problem,
    plan_dynamic,
    prepare_dynamic_qat,
    quantize_dynamic,
)
from fertool.quant.post_training import (
    describe_integer_fraction,
    plan_quantization,
    quantize_model,
)
from fertool.quant.qat import convert, prepare_qat
from fertool.quant.rounded_accuracy import RoundedAccuracy
from fertool.quant.weight_errors import weight_divergences

__all__ = [
    "Allocation",
    "AllocationProblem",
    "BitEvaluator",
    "RoundedAccuracy",
    "allocate",
    "convert",
    "convert_dynamic",
    "describe_dynamic_fraction",
    "describe_integer_fraction",
    "dynamic_divergences",
    "load_allocation",
    "lower_bound",
    "make_dynamic_problem",
    "make_problem",
    "plan_dynamic",
    "plan_quantization",
    "prepare_dynamic_qat",
    "prepare_qat",
    "quantize_dynamic",
    "quantize_model",
    "weight_divergences",
]
