"""Where an INT8 network rounds its activations: decided by the structure alone, the same on every machine.

A runtime turns an operator into its integer form when a quantiser stands before and behind it, so that every result of
an operator that has one gets a quantiser, and what integer operators read. Exceptions: a ReLU or ReLU6 straight behind
a computation shares the quantiser behind it, whose range already clips. What only moves values (pooling by maximum,
chunk, shuffle, flatten) keeps the grid of its input, and the parts of a concatenation share one grid where they can: no
second rounding. A linear layer that makes the logits leaves them as floats.

HardSigmoid(x) = min(max(x + 3, 0), 6) / 6 needs no table and no float: on a grid on which -3 is 0 steps and 0 a whole
number of steps, it is the same integers, clipped at twice that number, on a grid of a sixth of the step. So the values
that are read by HardSigmoid and HardSwish alone get such a grid (a `gated` site: smaller values are worth -3 to both),
and a HardSigmoid on it that is only multiplied with is rounded no more.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from fertool.graph.ir import Graph, Node
from fertool.graph.signs import non_negative_results
from fertool.spec import InputSpec

GATE_KNEE = 3.0
"""HardSigmoid is 0 below minus this and 1 above it."""


@dataclass(frozen=True)
class Site:
    """One quantiser: its name and the graph nodes whose results pass through it.

    `gated` holds the two ends beyond which its readers tell no values apart, -3 and 3 or infinity, where all of them
    are HardSigmoid or HardSwish; else None.
    """

    name: str
    nodes: tuple[str, ...]
    gated: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sites:
    """The quantisers of a network in the order in which they run, and the one that each layer reads from.

    `layer_inputs` names every convolution and linear layer that can be integer. The site is None where a layer reads
    the pixels themselves, whose grid is that of the InputSpec.
    """

    sites: tuple[Site, ...]
    layer_inputs: dict[str, str | None]


def exact_pixels(input: InputSpec) -> bool:
    """Return whether one uint8 grid holds the normalised pixels of all channels, so that they need no rounding."""
    return (
        input.integer_zero_point and len(set(input.zero_point)) == 1 and len(set(input.scale)) == 1
    )


def can_be_integer(node: Node) -> bool:
    """Return whether a node is a layer that runtimes compute on integer weights."""
    return node.operator.layer and node.operator.integer


def find_sites(graph: Graph, input: InputSpec, keep_float: Collection[str] = ()) -> Sites:
    """Return the quantisers of a folded network's graph, in which some layers may be to stay float."""
    plan = _Plan(graph, input, keep_float)
    groups: dict[str, list[str]] = {}
    for name in plan.order:
        root = plan.root(name)
        if root not in plan.unrounded:
            groups.setdefault(root, [])
            if name not in plan.passed_on:
                groups[root].append(name)
    sites = {root: root if root != graph.input else "input" for root in groups}
    layers = [node for node in graph.nodes if can_be_integer(node) and plan.is_map_or_vector(node)]
    return Sites(
        tuple(
            Site(sites[root], tuple(nodes), plan.gated.get(root)) for root, nodes in groups.items()
        ),
        {
            node.name: sites.get(plan.root(node.inputs[0]))
            for node in layers
            if node.name not in keep_float
        },
    )


class _Plan:
    """Nodes of equal grid, by union of sets: `root` names a node's set, `unrounded` holds the sets without quantiser.

    `passed_on` are the nodes whose result is rounded only by a later node of the same set. `gated` holds the ends of
    the sets that only HardSigmoid and HardSwish read.
    """

    def __init__(self, graph: Graph, input: InputSpec, keep_float: Collection[str]) -> None:
        self._graph, self._keep_float = graph, keep_float
        self.unrounded: set[str] = set()
        self.passed_on: set[str] = set()
        self._above: dict[str, str] = {}
        self._not_negative = non_negative_results(graph)
        self._fixed = _independent_of_images(graph)
        self.order = [
            graph.input,
            *(node.name for node in graph.nodes if node.name not in self._fixed),
        ]
        self._position = {name: position for position, name in enumerate(self.order)}
        if exact_pixels(input):
            self.unrounded.add(graph.input)
        for node in graph.nodes:
            if node.name not in self._fixed:
                self._place(node)
        self.gated = self._gated_sets()
        self.unrounded |= {node.name for node in graph.nodes if self._is_gate(node)}
        self.unrounded |= self._sets_of_floats()

    def root(self, name: str) -> str:
        """Return the node that stands for all of equal grid."""
        while name in self._above:
            name = self._above[name]
        return name

    def is_map_or_vector(self, node: Node) -> bool:
        """Return whether a layer reads activations, and not tensors of the network alone."""
        return node.name not in self._fixed

    def _place(self, node: Node) -> None:
        sources = [name for name in node.inputs if name not in self._fixed]
        same_sign = len({name in self._not_negative for name in sources}) == 1
        if node.op == "linear" and node.name == self._graph.output:
            self.unrounded.add(node.name)
        elif node.op in ("cat", "stack"):
            if same_sign and all(self.root(name) not in self.unrounded for name in sources):
                for name in sources:
                    self._join(node.name, name)
        elif node.operator.shares_qparams:
            self._join(node.name, sources[0])
        elif node.operator.clips and self._can_take(sources[0]):
            self._join(node.name, sources[0])
            self.passed_on.add(sources[0])
        if node.operator.multi_output:
            self.passed_on.add(node.name)

    def _readers_outside(self, name: str) -> list[Node]:
        return [
            node for node in self._graph.readers[name] if self.root(node.name) != self.root(name)
        ]

    def _readers_of_sets(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for name in self.order:
            readers.setdefault(self.root(name), []).extend(self._readers_outside(name))
        return readers

    def _gated_sets(self) -> dict[str, tuple[float, float]]:
        return {
            root: (
                -GATE_KNEE,
                math.inf if any(node.op == "hardswish" for node in nodes) else GATE_KNEE,
            )
            for root, nodes in self._readers_of_sets().items()
            if nodes
            and root not in self.unrounded
            and all(n.op in ("hardsigmoid", "hardswish") for n in nodes)
        }

    def _sets_of_floats(self) -> set[str]:
        """Sets that no integer operator makes or reads: rounding there would cost accuracy and buy nothing."""
        makers: dict[str, list[Node]] = {}
        for name in self.order[1:]:
            node = self._graph.by_name[name]
            if not node.operator.shares_qparams:
                makers.setdefault(self.root(name), []).append(node)
        return {
            root
            for root, readers in self._readers_of_sets().items()
            if not any(self._is_integer(node) for node in (*makers.get(root, ()), *readers))
        }

    def _is_integer(self, node: Node) -> bool:
        return node.operator.integer and node.name not in self._keep_float

    def _is_gate(self, node: Node) -> bool:
        gates = node.op == "hardsigmoid" and self.root(node.inputs[0]) in self.gated
        return gates and all(reader.op == "mul" for reader in self._graph.readers[node.name])

    def _can_take(self, source: str) -> bool:
        node = self._graph.by_name.get(source)
        if node is None or len(self._graph.readers[source]) > 1:
            return False
        return not (
            node.operator.shares_qparams or node.op == "cat" or node.operator.sign == "non-negative"
        )

    def _join(self, name: str, source: str) -> None:
        # The earlier node stays the root, so that a site is named after the first layer that it rounds.
        first, second = sorted((self.root(name), self.root(source)), key=self._position.__getitem__)
        if first != second:
            self._above[second] = first


def _independent_of_images(graph: Graph) -> set[str]:
    """Return the nodes that compute from the network's own tensors alone."""
    found: set[str] = set()
    for node in graph.nodes:
        if found.issuperset(node.inputs):
            found.add(node.name)
    return found
