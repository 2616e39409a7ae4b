"""Residual blocks, which can be removed since their result is only added to their input."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.graph.ir import Graph, Node
from fertool.graph.network import Network, clone_tensors, load_tensors_
from fertool.graph.signs import non_negative_results


@dataclass(frozen=True)
class Block:
    """A residual block: its sum, the result that its shortcut adds, and its branch's nodes."""

    name: str
    sum: str
    shortcut: str
    nodes: tuple[str, ...]


def find_blocks(network: Network) -> list[Block]:
    """Return the residual blocks whose shortcut is the identity, in running order."""
    found = []
    for node in network.graph.nodes:
        if node.op != "add" or len(node.inputs) != 2:
            continue
        left, right = node.inputs
        block = _block(network, node, left, right) or _block(network, node, right, left)
        if block is not None:
            found.append(block)
    return found


def _block(network: Network, total: Node, shortcut: str, branch_end: str) -> Block | None:
    """Return the block that ends in the sum `total`, if its branch reads its shortcut alone."""
    graph = network.graph
    branch = _branch(graph, total, shortcut, branch_end)
    if not _has_layer(graph, branch):
        return None

    # A branch of another shape is broadcast or broadcasts, and the sum without it would have
    # another shape.
    shortcut_shape = network.shapes.get(shortcut, network.image)
    branch_shape = network.shapes.get(branch_end, network.image)
    if shortcut_shape != branch_shape:
        return None
    return Block(_common_path(branch), total.name, shortcut, tuple(branch))


def _has_layer(graph: Graph, names: list[str]) -> bool:
    return any(graph.by_name[name].operator.layer for name in names)


def without_block(network: Network, block: Block) -> Network:
    """Return a new network with the same weights but without a block; `network` is not changed."""
    graph = network.graph.replace_nodes({block.sum: ()}, {block.sum: block.shortcut})
    shorter = Network(_without_redundant_relus(graph), network.image)
    load_tensors_(shorter, clone_tensors(network.state_dict()))
    return shorter.train(network.training)


def _branch(graph: Graph, total: Node, shortcut: str, end: str) -> list[str]:
    """Return the nodes between a shortcut and the end of its branch, in running order.

    Empty if a node outside the branch reads one inside, or one inside reads a result from outside
    other than the shortcut's. Tensors outside layers count as inside.
    """
    names = _names_since(graph, shortcut, end)
    # The images are no node: then the branch begins before the shortcut.
    if graph.input in names:
        return []

    allowed_readers = {*names, total.name}
    read: set[str] = set()
    for name in names:
        read.update(graph.by_name[name].inputs)
        for reader in graph.readers[name]:
            if reader.name not in allowed_readers:
                return []
    if shortcut not in read:
        return []
    return [node.name for node in graph.nodes if node.name in names]


def _names_since(graph: Graph, shortcut: str, end: str) -> set[str]:
    """Return the names of all results that `end` depends on other than through a shortcut."""
    found: set[str] = set()
    todo = [end]
    while todo:
        name = todo.pop()
        if name == shortcut or name in found:
            continue
        found.add(name)
        if name != graph.input:
            todo += graph.by_name[name].inputs
    return found


def _without_redundant_relus(graph: Graph) -> Graph:
    """Remove ReLUs whose input cannot be negative, as that of a ReLU behind a ReLU."""
    non_negative = non_negative_results(graph)
    redundant = {}
    for node in graph.nodes:
        if node.op == "relu" and node.inputs[0] in non_negative:
            redundant[node.name] = node.inputs[0]
    return graph.replace_nodes(dict.fromkeys(redundant, ()), redundant)


def _common_path(names: list[str]) -> str:
    """Return the first parts that all names have in common, or the first name if there are none."""
    common = names[0].split(".")
    for name in names:
        parts = name.split(".")
        while parts[: len(common)] != common:
            common.pop()
    return ".".join(common) or names[0]
