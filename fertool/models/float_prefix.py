"""The float prefix of an INT8 network: first layers of few channels, which are faster as floats.

Integer kernels gain by the channels of a pixel, which they take 16 or 64 at a time; in the first
layers of MobileNetV3 a map has 16 in all. A HardSwish there, or a product with a gate, is a pass
over the bytes of its own, where a float convolution has its HardSwish built in. In ONNX Runtime
1.31 stem and first block of MobileNetV3-Small at 48 pixels take about 12 of 205 microseconds less
as floats. Layers of few channels without such products gain nothing and stay integer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from fertool.cost import count_parameters
from fertool.errors import UsageError
from fertool.graph.ir import Node
from fertool.graph.network import Network
from fertool.models.quantizer_points import QuantizerPlan, can_be_integer, find_quantizer_points
from fertool.spec import InputSpec

MAX_CHANNELS = 16
"""Output channels that a layer of the float prefix may have."""
_MAX_WEIGHT_FRACTION = 1 / 200
"""Fraction of the network's weights that the prefix may hold, so that a file hardly grows."""


def plan_quantizers(
    network: Network,
    input: InputSpec,
    keep_float: Sequence[str] = (),
    float_nodes: Collection[str] | None = None,
) -> QuantizerPlan:
    """Return the quantizer points and integer layers of a folded network behind its float prefix.

    Layers whose names match one of `keep_float`, which may have the wildcards * and ? or be the
    path of a block, stay float too. Where `float_nodes` says which nodes compute with floats, there
    is no prefix. Raises UsageError for a pattern that matches no layer.
    """
    names = [network.graph.input]
    layers = []
    for node in network.graph.nodes:
        names.append(node.name)
        if can_be_integer(node):
            layers.append(node.name)
    kept = _match_layers(layers, keep_float)
    if float_nodes is not None:
        return find_quantizer_points(network.graph, input, kept, float_nodes)
    plan = find_quantizer_points(network.graph, input, kept)
    length = _prefix_length(network, plan)
    prefix = set(names[:length])

    # The last result of the prefix keeps its quantizer: the integer layers behind it read it.
    inner = set(names[: max(0, length - 1)])
    points = [point for point in plan.points if not inner.issuperset(point.nodes)]
    layer_inputs = {name: point for name, point in plan.layer_inputs.items() if name not in prefix}
    return QuantizerPlan(tuple(points), layer_inputs)


def _match_layers(names: Sequence[str], patterns: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    for pattern in patterns:
        matched = []
        for name in names:
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*"):
                matched.append(name)
        if not matched:
            hint = "leave it out: the network has no layer with weights"
            if names:
                hint = f"for example ``keep_float={names[0]}``"
            raise UsageError(f"``keep_float={pattern}``: no layer has this name", hint)
        found.update(matched)
    return frozenset(found)


def float_prefix(network: Network, input: InputSpec) -> frozenset[str]:
    """Return the nodes of a folded network's float prefix."""
    plan = find_quantizer_points(network.graph, input)
    length = _prefix_length(network, plan)
    # The image is counted, but no node.
    nodes = network.graph.nodes[: max(0, length - 1)]
    return frozenset(node.name for node in nodes)


def _prefix_length(network: Network, plan: QuantizerPlan) -> int:
    """Return the number of nodes in the float prefix, the image included.

    Only the result of its last node leaves the prefix.
    """
    quantized: set[str] = set()
    for point in plan.points:
        quantized.update(point.nodes)
    graph = network.graph
    positions = {node.name: position for position, node in enumerate(graph.nodes, start=1)}
    max_weights = _MAX_WEIGHT_FRACTION * count_parameters(network)
    last_reader = max(positions[node.name] for node in graph.readers[graph.input])
    length = 0
    weights = 0
    has_product = False
    for position, node in enumerate(graph.nodes, start=1):
        weights += _count_weights(network, node)
        if _ends_prefix(node) or weights > max_weights:
            break

        # Without a product the prefix would gain nothing; see above.
        has_product = has_product or _is_product(node)
        # A cut is possible where no later node reads what an earlier one made.
        if has_product and last_reader <= position and node.name in quantized:
            length = position + 1
        for reader in graph.readers[node.name]:
            last_reader = max(last_reader, positions[reader.name])
    return length


def _count_weights(network: Network, node: Node) -> int:
    layer = network.layer(node.name)
    if layer is None:
        return 0
    return count_parameters(layer)


def _ends_prefix(node: Node) -> bool:
    """Return whether a node is a layer that integers compute faster."""
    return node.op == "linear" or node.args.get("out_channels", 0) > MAX_CHANNELS


def _is_product(node: Node) -> bool:
    """Return whether a node multiplies two maps, or a map with a function of itself."""
    return node.operator.gated or (node.op == "mul" and len(node.inputs) == 2)
