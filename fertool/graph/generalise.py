"""Captured graphs without the sizes that their authors wrote down as numbers."""

from __future__ import annotations

from fertool.graph.ir import Graph
from fertool.graph.network import ImageShape


def generalised(graph: Graph, image: ImageShape) -> Graph:
    """Return the graph."""
    return graph
