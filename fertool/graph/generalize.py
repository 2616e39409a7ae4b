"""CapturedGraph graphs without the sizes that authors write down, or that tracing has made numbers.

What a network's author computes from `x.shape` arrives as a number. Where it is a number of channels, surgery could
not change them; so reshapes say -1 in its place, and the three operators of a channel shuffle become one. Spellings of
the same function become the one that runtimes and quantization know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from fertool.graph.channel_ids import varying
from fertool.graph.channels import ChannelTracer
from fertool.graph.ir import Graph, Node, make_node
from fertool.graph.network import ImageShape, Network


def generalize(graph: Graph, image: ImageShape) -> Graph:
    """Return the same computation in the operators' most general form."""
    for rewrite in (
        _without_idle,
        _without_vain_expansions,
        _with_shuffles,
        _with_named_activations,
        _with_free_channels,
    ):
        graph = rewrite(graph, Network(graph, image))
    return graph


def _without_idle(graph: Graph, network: Network) -> Graph:
    """Leave out what does nothing in training and in use."""
    idle = {
        node.name: node.inputs[0]
        for node in graph.nodes
        if node.op == "identity" or (node.operator.random and node.args["p"] == 0)
    }
    return graph.replace_nodes(dict.fromkeys(idle, ()), idle)


def _without_vain_expansions(graph: Graph, network: Network) -> Graph:
    """Leave out repetitions that sums and products make themselves: they name a number of channels that may change."""
    vain = {
        node.name: node.inputs[0]
        for node in graph.nodes
        if node.op == "expand"
        and graph.readers[node.name]
        and all(_repeats(graph, network, reader, node) for reader in graph.readers[node.name])
    }
    return graph.replace_nodes(dict.fromkeys(vain, ()), vain)


def _repeats(graph: Graph, network: Network, reader: Node, expansion: Node) -> bool:
    """Return whether the other operand has the shape of the expansion by itself."""
    others = [name for name in reader.inputs if name != expansion.name]
    if reader.operator.channel_effect != "couples" or len(others) != 1:
        return False
    maker = graph.by_name.get(others[0])
    is_expansion = maker is not None and maker.op == "expand"
    return (
        not is_expansion
        and network.shapes.get(others[0], network.image) == network.shapes[expansion.name]
    )


def _with_shuffles(graph: Graph, network: Network) -> Graph:
    """Let [N, g c, H, W] -> [N, g, c, H, W] -> [N, c, g, H, W] -> [N, g c, H, W] be a channel shuffle."""
    changed: dict[str, Sequence[Node]] = {}
    for last in graph.nodes:
        row = [last, *_before(graph, last, 2)]
        if [node.op for node in row] != ["reshape", "transpose", "reshape"]:
            continue
        _, swap, first = row
        before, apart = (
            network.shapes.get(first.inputs[0], network.image),
            network.shapes[first.name],
        )
        swaps = {swap.args["dim0"] % 5, swap.args["dim1"] % 5} == {1, 2}
        if (
            swaps
            and len(apart) == 4
            and len(before) == 3
            and network.shapes[last.name] == tuple(before)
        ):
            changed[last.name] = [
                make_node(last.name, "channel_shuffle", first.inputs, groups=apart[0])
            ]
    return graph.replace_nodes(changed)


def _with_named_activations(graph: Graph, network: Network) -> Graph:
    """Let x sigmoid(x) be SiLU, and what is written out of ReLU6 be HardSigmoid and HardSwish."""
    changed: dict[str, Sequence[Node]] = {}
    gates: dict[str, str] = {}
    for node in graph.nodes:
        source = _hard_sigmoid_of(graph, node)
        if source is not None:
            changed[node.name] = [make_node(node.name, "hardsigmoid", [source])]
            gates[node.name] = source
        elif node.op == "hardsigmoid":
            gates[node.name] = node.inputs[0]
    for node in graph.nodes:
        if node.op != "mul" or len(node.inputs) != 2:
            continue
        for value, gate in (node.inputs, reversed(node.inputs)):
            maker = graph.by_name.get(gate)
            if maker is None or len(graph.readers[gate]) > 1:
                continue
            if maker.op == "sigmoid" and maker.inputs == (value,):
                changed[node.name] = [make_node(node.name, "silu", [value])]
            elif gates.get(gate) == value:
                changed[node.name] = [make_node(node.name, "hardswish", [value])]
    return graph.replace_nodes(changed)


def _hard_sigmoid_of(graph: Graph, node: Node) -> str | None:
    """Return what a node computes the HardSigmoid of: it is `relu6(x + 3) / 6`."""
    row = [node, *_before(graph, node, 2)]
    if (
        [entry.op for entry in row[1:]] != ["relu6", "add"]
        or len(node.inputs) > 1
        or len(row[2].inputs) > 1
    ):
        return None
    factor = {"mul": node.args.get("other"), "div": 1 / (node.args.get("other") or 1)}.get(node.op)
    is_sixth = factor is not None and abs(factor * 6 - 1) < 1e-6
    return row[2].inputs[0] if is_sixth and row[2].args["other"] == 3 else None


def _with_free_channels(graph: Graph, network: Network) -> Graph:
    """Let reshapes say -1 where a number of channels stands, and 0 where the batch does."""
    tracer = ChannelTracer(network)
    values: dict[str, Any] = {graph.input: tracer.images()}
    changed = {}
    for node in graph.nodes:
        read = [values[name] for name in node.inputs]
        if node.op == "reshape":
            node = _freed(node, read[0], network)
            changed[node.name] = [node]
        values[node.name] = tracer.result(node, read)
    return graph.replace_nodes(changed)


def _freed(node: Node, ids: Tensor, network: Network) -> Node:
    shape = list(node.args["shape"])
    result = network.shapes[node.name]
    if shape[0] == -1 and ids.shape[0] == 1 and ids.numel() == _product(result):
        shape[0] = 0
    along = varying(ids.reshape(1, *result)) if shape[0] == 0 else []
    literal = [axis for axis in along if shape[axis] > 0]
    if len(along) == 1 and literal and -1 not in shape:
        shape[along[0]] = -1
    return node.with_args(shape=tuple(shape))


def _before(graph: Graph, node: Node, count: int) -> Iterator[Node]:
    """Yield the nodes before this one, as long as each reads one result that nothing else reads."""
    for _ in range(count):
        maker = graph.by_name.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if maker is None or len(graph.readers[maker.name]) > 1:
            return
        node = maker
        yield node


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
