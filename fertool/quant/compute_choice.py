"""Which parts of a network compute with floats on integer weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fertool.spec import ComputeSpec


@dataclass(frozen=True)
class ComputeChoice:
    """The nodes of a folded network that compute with floats, or all of them where that is None.

    Those of a dynamic network have names with the prefixes of their profiles. `spec` is what a
    header says of the choice, its layers left out.
    """

    float_nodes: frozenset[str] | None
    spec: ComputeSpec

    def under(self, prefix: str) -> ComputeChoice:
        """Return the choice of one profile of a dynamic network."""
        if self.float_nodes is None:
            return self
        own = set()
        for name in self.float_nodes:
            if name.startswith(prefix):
                own.add(name.removeprefix(prefix))
        return replace(self, float_nodes=frozenset(own))


ALL_FLOAT = ComputeChoice(None, ComputeSpec((), "float"))
"""All layers compute with floats."""
