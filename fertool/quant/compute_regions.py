"""Which nodes of a network compute on integers, and which with floats, for the least time.

Every node is on one of two sides, and so is every set of values that share a scale: rounded or
not. A node on integers needs the values that it reads and computes rounded; a value that a float
node computes and an integer one reads costs a QuantizeLinear, one that is rounded and that a float
node reads a DequantizeLinear. All of that is a cost of two vertices being parted, or of one being
on a side, so that the cheapest assignment of all is a minimum cut (Greig, Porteous and Seheult
1989), found exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fertool.graph.ir import Node
from fertool.graph.network import Network
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantizer_points import find_shared_qparams
from fertool.quant.kernel_times import Kernel, KernelTimes, Seconds, boundary_of, kernels_of
from fertool.quant.minimum_cut import INFINITE, CutGraph
from fertool.spec import InputSpec

INTEGER_CAUTION = 1.1
"""Factor on the seconds of integers and boundaries, since a table is not this machine's.

A region becomes integer only if it gains more than the error of the times.
"""


@dataclass(frozen=True)
class Regions:
    """The nodes that compute with floats, and the seconds that are expected of the network.

    `floats_s` are those of the network with floats alone.
    """

    float_nodes: frozenset[str]
    seconds: float
    floats_s: float


def choose_regions(
    network: Network,
    input: InputSpec,
    times: KernelTimes,
    keep_float: Sequence[str] = (),
    caution: float = INTEGER_CAUTION,
) -> Regions:
    """Return the assignment of a folded network's nodes that takes the least time.

    Layers that match `keep_float` compute with floats. Raises UsageError for a pattern that matches
    none.
    """
    allowed = plan_quantizers(network, input, keep_float, frozenset()).layer_inputs
    problem = _Problem(network, input, times, allowed)
    at_source = problem.graph(caution).source_side()
    float_nodes = set()
    for node in network.graph.nodes:
        if ("node", node.name) not in at_source:
            float_nodes.add(node.name)
    every = frozenset(network.graph.by_name)
    found = problem.without_enclosed_layers(frozenset(float_nodes))
    return Regions(found, problem.seconds(found), problem.seconds(every))


def kernels_needed(network: Network, input: InputSpec) -> set[Kernel]:
    """Return all kernels whose times `choose_regions` asks for."""
    needed: set[Kernel] = set()
    for kernels in kernels_of(network).values():
        needed.update(kernel for kernel, _ in kernels)
    shared = find_shared_qparams(network.graph, input)
    for name in shared.set_of.keys() - shared.passed_on:
        needed.add(boundary_of(network, name))
    return needed


class _Problem:
    """The costs of a network's nodes and values."""

    def __init__(
        self,
        network: Network,
        input: InputSpec,
        times: KernelTimes,
        allowed: Collection[str],
    ) -> None:
        self._network = network
        self._shared = find_shared_qparams(network.graph, input)
        self._allowed = allowed
        self._node_seconds: dict[str, Seconds] = {}
        for name, kernels in kernels_of(network).items():
            total = Seconds(0.0, 0.0)
            for kernel, count in kernels:
                total = total.plus(times.seconds(kernel).times(count))
            self._node_seconds[name] = total
        self._boundary_s: dict[str, float] = {}
        for name in self._shared.set_of.keys() - self._shared.passed_on:
            self._boundary_s[name] = times.seconds(boundary_of(network, name)).integers

    def graph(self, caution: float) -> CutGraph:
        """Return the graph whose minimum cut has integer nodes at the source."""
        cut = CutGraph()
        for node in self._network.graph.nodes:
            vertex = ("node", node.name)
            if self._is_free(node):
                # It follows the node whose result it clips, in either kind of arithmetic.
                self._tie(cut, vertex, ("node", node.inputs[0]))
                continue
            seconds = self._node_seconds.get(node.name, Seconds(0.0, 0.0))
            cut.cost_if_at_sink(vertex, seconds.floats)
            cut.cost_if_at_source(vertex, caution * seconds.integers)
            self._require(cut, node)
        for name in self._shared.set_of:
            self._add_boundaries(cut, name, caution)
        return cut

    def seconds(self, float_nodes: Collection[str]) -> float:
        """Return the seconds of an assignment."""
        rounded = self._rounded_sets(float_nodes)
        total = 0.0
        for node in self._network.graph.nodes:
            if not self._is_free(node) and node.name in self._node_seconds:
                seconds = self._node_seconds[node.name]
                total += seconds.floats if node.name in float_nodes else seconds.integers
        for name, boundary_s in self._boundary_s.items():
            total += boundary_s * self._count_boundaries(name, rounded, float_nodes)
        return total

    def _count_boundaries(
        self, name: str, rounded: Collection[str], float_nodes: Collection[str]
    ) -> int:
        """Return how often a value becomes integers or floats."""
        is_rounded = self._shared.set_of[name] in rounded
        count = int(is_rounded and self._is_float_producer(name, float_nodes))
        # Pixels are integers for every network.
        if is_rounded or self._is_exact_image(name):
            readers = self._network.graph.readers[name]
            count += any(reader.name in float_nodes for reader in readers)
        return count

    def without_enclosed_layers(self, float_nodes: frozenset[str]) -> frozenset[str]:
        """Return the assignment without float layers that read and compute rounded values.

        ONNX Runtime rounds the weight of such a layer by itself, so that integers are computed
        there in any case, by other weights than those of the file.
        """
        rounded = self._rounded_sets(float_nodes)
        enclosed = set()
        for node in self._network.graph.nodes:
            if node.name not in self._allowed or node.name not in float_nodes:
                continue
            computes_rounded = self._shared.set_of[node.name] in rounded
            if computes_rounded and rounded.issuperset(self._sets_needed(node)):
                enclosed.add(node.name)
        return float_nodes - enclosed

    def _rounded_sets(self, float_nodes: Collection[str]) -> set[str]:
        """Return the sets that a node on integers reads or computes."""
        rounded: set[str] = set()
        for node in self._network.graph.nodes:
            if node.name not in float_nodes and self._is_computing_integers(node):
                rounded.update(self._sets_needed(node))
        return rounded

    def _require(self, cut: CutGraph, node: Node) -> None:
        """Let a node compute on integers only between rounded values."""
        vertex = ("node", node.name)
        if not self._is_computing_integers(node):
            cut.cost_if_at_source(vertex, INFINITE)
            return
        for root in self._sets_needed(node):
            cut.cost_if_parted(vertex, ("set", root), INFINITE)
        if self._only_moves(node):
            # The bytes of a set are moved, where it has any.
            cut.cost_if_parted(("set", self._shared.set_of[node.name]), vertex, INFINITE)

    def _add_boundaries(self, cut: CutGraph, name: str, caution: float) -> None:
        """Add what it costs to round a value, and to read it as floats again."""
        if name in self._shared.passed_on:
            return
        root = self._shared.set_of[name]
        cost = caution * self._boundary_s[name]
        node = self._network.graph.by_name.get(name)
        readers = self._network.graph.readers[name]
        all_integer = ("readers", name)
        for reader in readers:
            cut.cost_if_parted(all_integer, ("node", reader.name), INFINITE)
        if self._is_exact_image(name):
            cut.cost_if_at_sink(all_integer, cost)
            return
        if root in self._shared.unquantized:
            return
        if readers:
            cut.cost_if_parted(("set", root), all_integer, cost)
        if node is None:
            cut.cost_if_at_source(("set", root), cost)
        elif not self._only_moves(node):
            cut.cost_if_parted(("set", root), ("node", name), cost)

    def _tie(self, cut: CutGraph, first: tuple[str, str], second: tuple[str, str]) -> None:
        cut.cost_if_parted(first, second, INFINITE)
        cut.cost_if_parted(second, first, INFINITE)

    def _is_computing_integers(self, node: Node) -> bool:
        """Return whether a runtime can compute a node on integers."""
        if node.name not in self._shared.set_of or not node.operator.integer:
            return False
        return not node.operator.layer or node.name in self._allowed

    def _sets_needed(self, node: Node) -> list[str]:
        """Return the sets that are rounded where a node computes on integers."""
        roots = []
        for name in (*node.inputs, node.name):
            root = self._shared.set_of.get(name)
            if root is None:
                continue
            if root not in self._shared.unquantized:
                roots.append(root)
            elif name in self._network.graph.by_name and name != node.name:
                # A gate that integers compute without a rounding: what it reads has to be integer.
                gate = self._network.graph.by_name[name]
                roots += [self._shared.set_of[source] for source in gate.inputs]
        return roots

    def _is_free(self, node: Node) -> bool:
        """Return whether a node clips what the one before it computes, in the same kernel."""
        if not node.operator.clips or node.name not in self._shared.set_of:
            return False
        return node.inputs[0] in self._shared.passed_on

    def _only_moves(self, node: Node) -> bool:
        """Return whether the values that a node reads and computes are one set."""
        roots = {self._shared.set_of.get(name) for name in (*node.inputs, node.name)}
        return len(roots) == 1 and node.operator.shares_qparams

    def _is_exact_image(self, name: str) -> bool:
        is_image = name == self._network.graph.input
        return is_image and self._shared.set_of[name] in self._shared.unquantized

    def _is_float_producer(self, name: str, float_nodes: Collection[str]) -> bool:
        node = self._network.graph.by_name.get(name)
        # The image, where its pixels are no integers to the first layer.
        if node is None:
            return True
        return not self._only_moves(node) and name in float_nodes
