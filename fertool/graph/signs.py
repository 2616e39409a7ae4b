"""Which results of a graph can not be negative."""

from __future__ import annotations

from fertool.graph.ir import Graph, Node


def non_negative_results(graph: Graph) -> set[str]:
    """Return the names of the nodes whose results are nowhere below 0, whatever the images."""
    found: set[str] = set()
    for node in graph.nodes:
        of_inputs = (
            node.operator.sign == "inherited"
            and bool(node.inputs)
            and found.issuperset(node.inputs)
        )
        if (
            node.operator.sign == "non-negative"
            or (of_inputs and not _has_negative_number(node))
            or _is_clipped(node)
        ):
            found.add(node.name)
    return found


def _has_negative_number(node: Node) -> bool:
    numbers = (node.args.get("other"), node.args.get("value"))
    return any(number is not None and number < 0 for number in numbers)


def _is_clipped(node: Node) -> bool:
    lowest = node.args.get("min") if node.op == "clamp" else node.args.get("min_val")
    return lowest is not None and lowest >= 0
