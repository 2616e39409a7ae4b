"""Disjoint sets of numbers (union-find): channels that can only be removed together."""

from __future__ import annotations


class DisjointSets:
    """Sets of the numbers 0, 1, …; each set is represented by its smallest member, its root."""

    def __init__(self, count: int = 0) -> None:
        self._parents = list(range(count))

    def add(self, count: int) -> int:
        """Add as many sets of one member each, and return the first of them."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return first

    def root(self, member: int) -> int:
        """Return the smallest member of a member's set."""
        parents = self._parents
        while parents[member] != member:
            # Path halving keeps the trees flat: networks have 10^5 channels, and long chains of
            # additions.
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    def roots(self) -> list[int]:
        """Return the root of each number."""
        return [self.root(member) for member in range(len(self._parents))]

    def unite(self, one: int, other: int) -> None:
        """Make one set of those of two members."""
        one_root = self.root(one)
        other_root = self.root(other)
        # The smaller root wins, so that the result does not depend on the order of calls.
        self._parents[max(one_root, other_root)] = min(one_root, other_root)

    def unite_all(self, members: list[int]) -> None:
        """Make one set of those of several members."""
        for member in members[1:]:
            self.unite(members[0], member)
