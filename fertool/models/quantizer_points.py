"""Where an INT8 network quantizes its activations: decided by the graph alone, on every machine.

A runtime turns an operator into its integer form when a quantizer stands before and behind it. So
every result of an operator that has an integer form gets a quantizer, and so does what integer
operators read. Exceptions:

- a ReLU or ReLU6 straight behind a computation shares the quantizer behind it, whose range clips;
- what only moves values (max pooling, chunk, shuffle, flatten) keeps the scale and zero point of
  its input, and the parts of a concatenation share them where they can: no second rounding;
- a linear layer that computes the logits leaves them as floats.

HardSigmoid(x) = min(max(x + 3, 0), 6) / 6 needs neither a table nor floats where the integer 0
stands for -3 and a whole number for 0: it is the same integers, clipped at twice that number, with
a sixth of the scale. Values that only HardSigmoid and HardSwish read get such qparams (their point
has a `gate_range`: both return 0 for all values below -3), and a HardSigmoid on them that is only
multiplied with needs no quantizer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from fertool.graph.ir import Graph, Node
from fertool.graph.signs import non_negative_results
from fertool.spec import InputSpec

GATE_KNEE = 3.0
"""HardSigmoid is 0 below minus this and 1 above it."""
_GATES = ("hardsigmoid", "hardswish")


@dataclass(frozen=True)
class QuantizerPoint:
    """One quantizer: its name and the graph nodes whose results pass through it.

    `gate_range` is set where only HardSigmoid and HardSwish read the values: the ends beyond which
    they tell no values apart, -3 and 3 or infinity.
    """

    name: str
    nodes: tuple[str, ...]
    gate_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class QuantizerPlan:
    """The quantizer points of a network in order of execution, and the one that each layer reads.

    `layer_inputs` names every convolution and linear layer that can be integer. Its point is None
    where the layer reads the pixels themselves, whose scale and zero point the InputSpec has.
    `float_layers` are those among them that compute with floats on integer weights.
    """

    points: tuple[QuantizerPoint, ...]
    layer_inputs: dict[str, str | None]
    float_layers: frozenset[str] = field(default_factory=frozenset)


def exact_pixels(input: InputSpec) -> bool:
    """Return whether one uint8 scale and zero point are exact for normalized pixels of any channel.

    Such pixels need no quantizer.
    """
    same_zero_point = len(set(input.zero_point)) == 1
    same_scale = len(set(input.scale)) == 1
    return input.integer_zero_point and same_zero_point and same_scale


def can_be_integer(node: Node) -> bool:
    """Return whether a node is a layer that runtimes compute on integer weights."""
    return node.operator.layer and node.operator.integer


def find_quantizer_points(
    graph: Graph,
    input: InputSpec,
    keep_float: Collection[str] = (),
    float_nodes: Collection[str] = (),
) -> QuantizerPlan:
    """Return the quantizer points of a folded network; the layers `keep_float` stay float.

    `float_nodes` compute with floats too, but have integer weights.
    """
    sets = _QParamsSets(graph, input, {*keep_float, *float_nodes})
    members: dict[str, list[str]] = {}
    for name in sets.order:
        root = sets.root(name)
        if root in sets.unquantized:
            continue
        members.setdefault(root, [])
        if name not in sets.passed_on:
            members[root].append(name)

    points = []
    point_names = {}
    for root, nodes in members.items():
        # The image's own node may have any name; files rely on this one.
        name = "input" if root == graph.input else root
        points.append(QuantizerPoint(name, tuple(nodes), sets.gate_ranges.get(root)))
        point_names[root] = name

    layer_inputs = {}
    for node in graph.nodes:
        if can_be_integer(node) and sets.reads_image(node) and node.name not in keep_float:
            layer_inputs[node.name] = point_names.get(sets.root(node.inputs[0]))
    float_layers = frozenset(layer_inputs).intersection(float_nodes)
    return QuantizerPlan(tuple(points), layer_inputs, float_layers)


@dataclass(frozen=True)
class SharedQParams:
    """Which values share a scale and zero point, and where they are rounded.

    `set_of` names the set of each node that reads the image, the image's own included. The sets in
    `unquantized` have no scale; the nodes in `passed_on` are rounded by a later one of their set.
    """

    set_of: dict[str, str]
    unquantized: frozenset[str]
    passed_on: frozenset[str]


def find_shared_qparams(graph: Graph, input: InputSpec) -> SharedQParams:
    """Return the sets of values of a folded network whose layers are all integer."""
    sets = _QParamsSets(graph, input, ())
    set_of = {name: sets.root(name) for name in sets.order}
    return SharedQParams(set_of, frozenset(sets.unquantized), frozenset(sets.passed_on))


class _QParamsSets:
    """Nodes whose results share one scale and zero point, as disjoint sets (union-find).

    `root` names the set of a node. `unquantized` holds the sets without a quantizer, `passed_on`
    the nodes whose result is rounded only by a later node of the same set, and `gate_ranges` the
    ranges of the sets that only HardSigmoid and HardSwish read.
    """

    def __init__(self, graph: Graph, input: InputSpec, keep_float: Collection[str]) -> None:
        self._graph = graph
        self._keep_float = keep_float
        self._non_negative = non_negative_results(graph)
        self._constant = _independent_of_images(graph)
        nodes = [node for node in graph.nodes if node.name not in self._constant]
        self.order = [graph.input]
        for node in nodes:
            self.order.append(node.name)
        self._position = {name: position for position, name in enumerate(self.order)}

        self._parents: dict[str, str] = {}
        self.unquantized: set[str] = set()
        self.passed_on: set[str] = set()
        if exact_pixels(input):
            self.unquantized.add(graph.input)
        for node in nodes:
            self._place(node)

        # Ranges come first: which nodes are gates follows from them.
        readers = self._readers_of_sets()
        self.gate_ranges = self._find_gate_ranges(readers)
        for node in graph.nodes:
            if self._is_gate(node):
                self.unquantized.add(node.name)
        self.unquantized.update(self._find_float_sets(readers))

    def root(self, name: str) -> str:
        """Return the node that names the set of a node."""
        while name in self._parents:
            name = self._parents[name]
        return name

    def reads_image(self, node: Node) -> bool:
        """Return whether a node computes from the image, not from the network's tensors alone."""
        return node.name not in self._constant

    def _place(self, node: Node) -> None:
        """Join a node to the sets of its inputs, where it shares their scale and zero point.

        Nodes come in order of execution, so that the sets of its inputs are known.
        """
        sources = [name for name in node.inputs if name not in self._constant]
        # Its parts are rounded, each where it is taken out.
        if node.operator.multi_output:
            self.passed_on.add(node.name)
        if node.op == "linear" and node.name == self._graph.output:
            self.unquantized.add(node.name)
        elif node.op in ("cat", "stack"):
            self._join_parts(node, sources)
        elif node.operator.shares_qparams:
            self._join(node.name, sources[0])
        elif node.operator.clips:
            self._join_clip(node, sources[0])

    def _join_clip(self, node: Node, source: str) -> None:
        """Let the quantizer behind a clipping activation do its clipping, where it can."""
        if self._can_absorb_clip(source):
            self._join(node.name, source)
            self.passed_on.add(source)

    def _join_parts(self, node: Node, sources: list[str]) -> None:
        """Give the parts of a concatenation one scale, unless signs differ or one has none."""
        # A range on both sides of zero would halve the resolution of parts that are never negative.
        signs = {name in self._non_negative for name in sources}
        if len(signs) != 1:
            return
        for name in sources:
            if self.root(name) in self.unquantized:
                return
        for name in sources:
            self._join(node.name, name)

    def _can_absorb_clip(self, source: str) -> bool:
        """Return whether only the quantizer behind a clipping activation rounds its input."""
        node = self._graph.by_name.get(source)
        if node is None or len(self._graph.readers[source]) > 1:
            return False
        shares_qparams = node.operator.shares_qparams or node.op == "cat"
        return not shares_qparams and node.operator.sign != "non-negative"

    def _join(self, name: str, source: str) -> None:
        # The earlier node stays the root: a point is named after the first layer it quantizes.
        roots = (self.root(name), self.root(source))
        first, second = sorted(roots, key=self._position.__getitem__)
        if first != second:
            self._parents[second] = first

    def _readers_of_sets(self) -> dict[str, list[Node]]:
        """Return by set the nodes outside of it that read from it."""
        readers: dict[str, list[Node]] = {}
        for name in self.order:
            root = self.root(name)
            outside = readers.setdefault(root, [])
            for reader in self._graph.readers[name]:
                if self.root(reader.name) != root:
                    outside.append(reader)
        return readers

    def _find_gate_ranges(self, readers: dict[str, list[Node]]) -> dict[str, tuple[float, float]]:
        ranges = {}
        for root, nodes in readers.items():
            if not nodes or root in self.unquantized:
                continue
            operators = {node.op for node in nodes}
            if operators.issubset(_GATES):
                # HardSwish(x) is x above 3, so that only HardSigmoid has an upper end.
                high = math.inf if "hardswish" in operators else GATE_KNEE
                ranges[root] = (-GATE_KNEE, high)
        return ranges

    def _is_gate(self, node: Node) -> bool:
        """Return whether a node is a HardSigmoid that integers compute without a rounding."""
        if node.op != "hardsigmoid" or self.root(node.inputs[0]) not in self.gate_ranges:
            return False
        return all(reader.op == "mul" for reader in self._graph.readers[node.name])

    def _find_float_sets(self, readers: dict[str, list[Node]]) -> set[str]:
        """Return the sets that no integer operator makes or reads.

        A quantizer there would cost accuracy and buy no speed.
        """
        integer_sets = set()
        for root, nodes in readers.items():
            if any(self._is_integer(node) for node in nodes):
                integer_sets.add(root)
        for name in self.order[1:]:
            node = self._graph.by_name[name]
            if not node.operator.shares_qparams and self._is_integer(node):
                integer_sets.add(self.root(name))
        return readers.keys() - integer_sets

    def _is_integer(self, node: Node) -> bool:
        return node.operator.integer and node.name not in self._keep_float


def _independent_of_images(graph: Graph) -> set[str]:
    """Return the nodes that compute from the network's own tensors alone."""
    found: set[str] = set()
    for node in graph.nodes:
        if found.issuperset(node.inputs):
            found.add(node.name)
    return found
