"""Rewrites of captured graphs to a form that pruning and runtimes can work with.

Sizes that a network's author computes from `x.shape` are numbers in a captured graph. Surgery could
not change those that are numbers of channels, so reshapes get -1 in their place, and the three
operators of a channel shuffle become one. Activations that are written out become the operators
that runtimes and quantization know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fertool.graph.channel_ids import varying_axes
from fertool.graph.channels import ChannelTracer
from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import ImageShape, Network


def generalize(graph: Graph, image: ImageShape) -> Graph:
    """Return the same computation in the most general operators and arguments."""
    # Shuffles come before free channels: their reshapes have channels on two axes, which -1 cannot
    # stand for. Each rewrite gets a network of its own, with the shapes of the results so far.
    rewrites = (
        _without_identities,
        _without_redundant_expansions,
        _with_channel_shuffles,
        _with_named_activations,
        _with_free_channels,
    )
    for rewrite in rewrites:
        graph = rewrite(graph, Network(graph, image))
    return graph


def _without_identities(graph: Graph, network: Network) -> Graph:
    """Remove what does nothing, neither in training nor in eval mode."""
    source_of = {}
    for node in graph.nodes:
        never_drops = node.operator.random and node.args["p"] == 0
        if node.op == "identity" or never_drops:
            source_of[node.name] = node.inputs[0]
    return graph.replace_nodes(dict.fromkeys(source_of, ()), source_of)


def _without_redundant_expansions(graph: Graph, network: Network) -> Graph:
    """Remove expansions that sums and products make themselves, since these name channel counts."""
    source_of = {}
    for node in graph.nodes:
        readers = graph.readers[node.name]
        if node.op != "expand" or not readers:
            continue
        if all(_broadcasts_itself(graph, network, reader, node) for reader in readers):
            source_of[node.name] = node.inputs[0]
    return graph.replace_nodes(dict.fromkeys(source_of, ()), source_of)


def _broadcasts_itself(graph: Graph, network: Network, reader: Node, expansion: Node) -> bool:
    """Return whether a reader's other input, not expanded itself, has the expansion's shape."""
    if reader.operator.channel_effect != "couples" or len(set(reader.inputs)) != 2:
        return False
    left, right = reader.inputs
    other = left
    if left == expansion.name:
        other = right
    producer = graph.by_name.get(other)
    if producer is not None and producer.op == "expand":
        return False
    return network.shapes.get(other, network.image) == network.shapes[expansion.name]


def _with_channel_shuffles(graph: Graph, network: Network) -> Graph:
    """Replace [N, gc, H, W] -> [N, g, c, H, W] -> [N, c, g, H, W] -> [N, gc, H, W] by a shuffle."""
    changed: dict[str, Sequence[Node]] = {}
    for last in graph.nodes:
        chain = _chain_ending_in(graph, last, ("reshape", "transpose", "reshape"))
        if chain is None:
            continue
        first, swap, _ = chain
        before = network.shapes.get(first.inputs[0], network.image)
        in_groups = network.shapes[first.name]
        swapped_axes = {swap.args["dim0"] % 5, swap.args["dim1"] % 5}
        if len(before) != 3 or len(in_groups) != 4 or swapped_axes != {1, 2}:
            continue
        if network.shapes[last.name] == tuple(before):
            groups = in_groups[0]
            shuffle = make_node(last.name, "channel_shuffle", first.inputs, groups=groups)
            changed[last.name] = [shuffle]
    return graph.replace_nodes(changed)


def _with_named_activations(graph: Graph, network: Network) -> Graph:
    """Replace x sigmoid(x) by SiLU, and what is written with ReLU6 by HardSigmoid and HardSwish."""
    gate_inputs = _hard_sigmoid_inputs(graph)
    changed: dict[str, Sequence[Node]] = {}
    for name, source in gate_inputs.items():
        changed[name] = [make_node(name, "hardsigmoid", [source])]

    for node in graph.nodes:
        if node.op != "mul" or len(node.inputs) != 2:
            continue
        left, right = node.inputs
        for value, gate in ((left, right), (right, left)):
            op = _gated_activation(graph, value, gate, gate_inputs)
            if op is not None:
                changed[node.name] = [make_node(node.name, op, [value])]
    return graph.replace_nodes(changed)


def _gated_activation(
    graph: Graph, value: str, gate: str, gate_inputs: Mapping[str, str]
) -> str | None:
    """Return the operator that computes the product of a value and its gate, if there is one."""
    if len(graph.readers[gate]) > 1:
        return None
    if gate_inputs.get(gate) == value:
        return "hardswish"
    producer = graph.by_name.get(gate)
    is_sigmoid = producer is not None and producer.op == "sigmoid"
    if is_sigmoid and graph.by_name[gate].inputs == (value,):
        return "silu"
    return None


def _hard_sigmoid_inputs(graph: Graph) -> dict[str, str]:
    """Return the inputs of the nodes that compute HardSigmoid, as `relu6(x + 3) / 6` does."""
    found = {}
    for node in graph.nodes:
        chain = _chain_ending_in(graph, node, ("add", "relu6", node.op))
        if node.op == "hardsigmoid":
            found[node.name] = node.inputs[0]
        # An addition of two inputs has None as its number.
        elif chain is not None and chain[0].args["other"] == 3 and _is_sixth(node):
            found[node.name] = chain[0].inputs[0]
    return found


def _is_sixth(node: Node) -> bool:
    """Return whether a node with one input divides it by 6."""
    number = node.args.get("other")
    if node.op == "div" and number:
        factor = 1 / number
    elif node.op == "mul":
        factor = number
    else:
        return False
    # Some authors write the sixth with a few digits.
    return bool(abs(factor * 6 - 1) < 1e-6)


def _with_free_channels(graph: Graph, network: Network) -> Graph:
    """Write -1 into the shapes of reshapes for a number of channels, and 0 for the batch."""
    tracer = ChannelTracer(network)
    values: dict[str, Any] = {graph.input: tracer.image_ids()}
    changed = {}
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        if node.op == "reshape":
            node = _with_free_shape(node, inputs[0], network)
            changed[node.name] = [node]
        values[node.name] = tracer.trace(node, inputs)
    return graph.replace_nodes(changed)


def _with_free_shape(reshape: Node, ids: Tensor, network: Network) -> Node:
    """Return a reshape for any number of channels, if they are on one axis; `ids` are its input."""
    shape = list(reshape.args["shape"])
    result_shape = network.shapes[reshape.name]
    if shape[0] == -1 and _keeps_batch(ids, result_shape):
        # 0 means the same for the batch, and only one size can be -1.
        shape[0] = 0
    if shape[0] == 0 and -1 not in shape:
        _free_channel_axis_(shape, ids.reshape(1, *result_shape))
    return reshape.with_args(shape=tuple(shape))


def _keeps_batch(ids: Tensor, result_shape: Sequence[int]) -> bool:
    """Return whether a reshape to this shape for one image leaves the axis of the batch alone."""
    return ids.shape[0] == 1 and ids.numel() == math.prod(result_shape)


def _free_channel_axis_(shape: list[int], ids: Tensor) -> None:
    """Write -1 for the number of channels into a shape; `ids` are those of the result."""
    axes = varying_axes(ids)
    if len(axes) == 1 and shape[axes[0]] > 0:
        shape[axes[0]] = -1


def _chain_ending_in(graph: Graph, last: Node, ops: Sequence[str]) -> list[Node] | None:
    """Return nodes of these operators, each the only reader of the one before, in running order.

    None if there are no such nodes, or one but the first reads more than one result.
    """
    chain: list[Node] = []
    node: Node | None = last
    for op in reversed(ops):
        if node is None or node.op != op:
            return None
        chain.append(node)
        node = _exclusive_producer(graph, node)

    chain.reverse()
    return chain


def _exclusive_producer(graph: Graph, node: Node) -> Node | None:
    """Return the node whose result is a node's only input, if nothing else reads it."""
    if len(node.inputs) != 1:
        return None
    (source,) = node.inputs
    if len(graph.readers[source]) > 1:
        return None
    return graph.by_name.get(source)
