"""The minimum cut of a graph with capacities, by augmenting paths (Dinic 1970)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

INFINITE = float("inf")
_LEAST = 1e-15
"""Below this a capacity is a rounding error: those that are cut are seconds."""


class CutGraph:
    """Vertices on the side of the source or of the sink, and what it costs to part them."""

    def __init__(self) -> None:
        self._index: dict[Hashable, int] = {}
        self._edges: list[list[int]] = []
        self._ends: list[int] = []
        self._capacities: list[float] = []
        self._source = self._vertex(("the source",))
        self._sink = self._vertex(("the sink",))

    def cost_if_at_sink(self, vertex: Hashable, cost: float) -> None:
        """Let it cost so much to have a vertex on the side of the sink."""
        self._add(self._source, self._vertex(vertex), cost)

    def cost_if_at_source(self, vertex: Hashable, cost: float) -> None:
        """Let it cost so much to have a vertex on the side of the source."""
        self._add(self._vertex(vertex), self._sink, cost)

    def cost_if_parted(self, first: Hashable, second: Hashable, cost: float) -> None:
        """Let it cost so much to have the first at the source and the second at the sink."""
        self._add(self._vertex(first), self._vertex(second), cost)

    def source_side(self) -> set[Hashable]:
        """Return the vertices at the source in a cut of the least cost."""
        while True:
            levels = self._levels()
            if levels[self._sink] < 0:
                break
            positions = [0] * len(self._edges)
            while self._augment(levels, positions):
                pass
        return {name for name, vertex in self._index.items() if levels[vertex] >= 0}

    def _vertex(self, name: Hashable) -> int:
        if name not in self._index:
            self._index[name] = len(self._edges)
            self._edges.append([])
        return self._index[name]

    def _add(self, start: int, end: int, capacity: float) -> None:
        # An edge and its opposite are neighbors, so that their numbers differ in the last bit.
        for begin, other, value in ((start, end, capacity), (end, start, 0.0)):
            self._edges[begin].append(len(self._ends))
            self._ends.append(other)
            self._capacities.append(value)

    def _levels(self) -> list[int]:
        """Return the distance of each vertex from the source, -1 where no path is left."""
        levels = [-1] * len(self._edges)
        levels[self._source] = 0
        pending = deque([self._source])
        while pending:
            vertex = pending.popleft()
            for edge in self._edges[vertex]:
                end = self._ends[edge]
                if levels[end] < 0 and self._capacities[edge] > _LEAST:
                    levels[end] = levels[vertex] + 1
                    pending.append(end)
        return levels

    def _augment(self, levels: list[int], positions: list[int]) -> bool:
        """Send as much as one path takes to the sink; returns whether there was one."""
        path: list[int] = []
        vertex = self._source
        while vertex != self._sink:
            edge = self._next_edge(vertex, levels, positions)
            if edge is not None:
                path.append(edge)
                vertex = self._ends[edge]
            elif path:
                # A dead end: the edge that led there is not tried again.
                edge = path.pop()
                vertex = self._ends[edge ^ 1]
                positions[vertex] += 1
            else:
                return False
        flow = min(self._capacities[edge] for edge in path)
        for edge in path:
            self._capacities[edge] -= flow
            self._capacities[edge ^ 1] += flow
        return True

    def _next_edge(self, vertex: int, levels: list[int], positions: list[int]) -> int | None:
        edges = self._edges[vertex]
        while positions[vertex] < len(edges):
            edge = edges[positions[vertex]]
            is_onward = levels[self._ends[edge]] == levels[vertex] + 1
            if is_onward and self._capacities[edge] > _LEAST:
                return edge
            positions[vertex] += 1
        return None
