"""The cheapest way to put vertices on one of two sides, where parting some of them costs."""

from __future__ import annotations

from collections.abc import Hashable

import networkx as nx

INFINITE = float("inf")
_PER_UNIT = 1e12
"""Costs are counted in integers: a cut is exact only of those. Of seconds these are picoseconds."""
# Vertices of no caller.
_SOURCE = object()
_SINK = object()


class CutGraph:
    """Vertices on the side of the source or of the sink, and what it costs to part them."""

    def __init__(self) -> None:
        # Edges run from the sink: of equally cheap cuts networkx takes the one with the fewest
        # vertices at the end, and these are to be those at the source.
        self._graph = nx.DiGraph()
        self._graph.add_nodes_from((_SOURCE, _SINK))

    def cost_if_at_sink(self, vertex: Hashable, cost: float) -> None:
        """Let it cost so much to have a vertex on the side of the sink."""
        self.cost_if_parted(_SOURCE, vertex, cost)

    def cost_if_at_source(self, vertex: Hashable, cost: float) -> None:
        """Let it cost so much to have a vertex on the side of the source."""
        self.cost_if_parted(vertex, _SINK, cost)

    def cost_if_parted(self, first: Hashable, second: Hashable, cost: float) -> None:
        """Let it cost so much to have the first at the source and the second at the sink."""
        before = self._graph.get_edge_data(second, first, {"capacity": 0})
        if cost == INFINITE or "capacity" not in before:
            # An edge without a capacity is never cut.
            self._graph.remove_edges_from([(second, first)])
            self._graph.add_edge(second, first)
        else:
            capacity = before["capacity"] + round(cost * _PER_UNIT)
            self._graph.add_edge(second, first, capacity=capacity)

    def source_side(self) -> set[Hashable]:
        """Return the vertices at the source in a cut of the least cost."""
        _, (_, at_source) = nx.minimum_cut(self._graph, _SINK, _SOURCE)
        found: set[Hashable] = set(at_source)
        return found - {_SOURCE}
