"""Which results of a graph cannot be negative."""

from __future__ import annotations

from fertool.graph.ir import Graph, Node


def non_negative_results(graph: Graph) -> set[str]:
    """Return the names of the nodes whose results are at least 0 for all images."""
    found: set[str] = set()
    for node in graph.nodes:
        if _is_non_negative(node, found):
            found.add(node.name)
    return found


def _is_non_negative(node: Node, earlier: set[str]) -> bool:
    """Return whether a result cannot be negative, given the `earlier` ones that cannot."""
    sign = node.operator.sign
    if sign == "non-negative" or _is_clipped_at_zero(node):
        return True
    if sign != "inherited" or not node.inputs:
        return False
    return earlier.issuperset(node.inputs) and not _has_negative_number(node)


def _has_negative_number(node: Node) -> bool:
    """Return whether an operand or the value of a padding is a negative number."""
    for key in ("other", "value"):
        number = node.args.get(key)
        if number is not None and number < 0:
            return True
    return False


def _is_clipped_at_zero(node: Node) -> bool:
    # `clamp` calls its lower bound `min`, `hardtanh` `min_val`.
    key = "min" if node.op == "clamp" else "min_val"
    lower_bound = node.args.get(key)
    return lower_bound is not None and lower_bound >= 0
