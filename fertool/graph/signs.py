"""Which results of a graph cannot be negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fertool.graph.ir import Graph
from fertool.graph.operators import OPERATORS


def non_negative_results(graph: Graph) -> set[str]:
    """Return the names of the nodes whose results are at least 0 for all images."""
    found: set[str] = set()
    for node in graph.nodes:
        inputs = [name in found for name in node.inputs]
        if is_non_negative(node.op, node.args, inputs):
            found.add(node.name)
    return found


def is_non_negative(op: str, args: Mapping[str, Any], inputs: Sequence[bool]) -> bool:
    """Return whether an operator's result cannot be negative; `inputs` tell that of each input."""
    sign = OPERATORS[op].sign
    if sign == "non-negative" or _is_clipped_at_zero(op, args):
        return True
    if sign != "inherited" or not inputs:
        return False
    return all(inputs) and not _has_negative_number(args)


def _has_negative_number(args: Mapping[str, Any]) -> bool:
    """Return whether an operand or the value of a padding is a negative number."""
    for key in ("other", "value"):
        number = args.get(key)
        if number is not None and number < 0:
            return True
    return False


def _is_clipped_at_zero(op: str, args: Mapping[str, Any]) -> bool:
    # `clamp` calls its lower bound `min`, `hardtanh` `min_val`.
    key = "min" if op == "clamp" else "min_val"
    lower_bound = args.get(key)
    return lower_bound is not None and lower_bound >= 0
