"""Integers in place of floats: ranges measured on a few hundred faces, bits shared out, errors made up for."""

from __future__ import annotations

from fertool.quant.allocation import ALLOCATIONS, Problem, allocate, lower_bound, make_problem
from fertool.quant.ddpg import RoundedAccuracy, Search, search
from fertool.quant.post_training import (
    FULL_LIMIT,
    PORTABLE_LIMIT,
    QuantizeConfig,
    integer_share,
    plan_quantization,
    quantize_model,
)
from fertool.quant.qat import settle, trainable

__all__ = [
    "ALLOCATIONS",
    "FULL_LIMIT",
    "PORTABLE_LIMIT",
    "Problem",
    "QuantizeConfig",
    "RoundedAccuracy",
    "Search",
    "allocate",
    "integer_share",
    "lower_bound",
    "make_problem",
    "plan_quantization",
    "quantize_model",
    "search",
    "settle",
    "trainable",
]
