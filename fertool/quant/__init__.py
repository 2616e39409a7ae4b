"""Quantization: calibrated ranges, bits allocated under a budget, weights rounded by GPTQ, QAT."""

from __future__ import annotations

from fertool.quant.allocation import (
    ALLOCATIONS,
    AllocationProblem,
    allocate,
    lower_bound,
    make_problem,
)
from fertool.quant.ddpg import DDPGConfig, RoundedAccuracy, search_bits_ddpg
from fertool.quant.post_training import (
    describe_integer_fraction,
    plan_quantization,
    quantize_model,
)
from fertool.quant.qat import convert, prepare_qat

__all__ = [
    "ALLOCATIONS",
    "AllocationProblem",
    "DDPGConfig",
    "RoundedAccuracy",
    "allocate",
    "convert",
    "describe_integer_fraction",
    "lower_bound",
    "make_problem",
    "plan_quantization",
    "prepare_qat",
    "quantize_model",
    "search_bits_ddpg",
]
