"""Quantization: calibrated ranges, bits allocated under a budget, weights rounded by GPTQ, QAT."""

from __future__ import annotations

from fertool.quant.allocation import Allocation, BitEvaluator, allocate, load_allocation
from fertool.quant.allocation_problem import AllocationProblem, lower_bound, make_problem
from fertool.quant.compute_choice import ALL_FLOAT, ComputeChoice
from fertool.quant.compute_regions import choose_regions, kernels_needed
from fertool.quant.dynamic_network import (
    convert_dynamic,
    describe_dynamic_fraction,
    dynamic_divergences,
    make_dynamic_problem,
    plan_dynamic,
    prepare_dynamic_qat,
    quantize_dynamic,
)
from fertool.quant.kernel_times import KernelTimes, Seconds, shipped_times
from fertool.quant.post_training import (
    describe_integer_fraction,
    plan_quantization,
    quantize_model,
)
from fertool.quant.qat import convert, prepare_qat
from fertool.quant.rounded_accuracy import RoundedAccuracy
from fertool.quant.weight_errors import weight_divergences

__all__ = [
    "ALL_FLOAT",
    "Allocation",
    "AllocationProblem",
    "BitEvaluator",
    "ComputeChoice",
    "KernelTimes",
    "RoundedAccuracy",
    "Seconds",
    "allocate",
    "choose_regions",
    "convert",
    "convert_dynamic",
    "describe_dynamic_fraction",
    "describe_integer_fraction",
    "dynamic_divergences",
    "kernels_needed",
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
    "shipped_times",
    "weight_divergences",
]
