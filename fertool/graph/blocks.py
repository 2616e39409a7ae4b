"""Residual blocks: parts of a network that can go, since their result is only added to what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fertool.graph.ir import Graph, Node
from fertool.graph.network import Network
from fertool.graph.signs import non_negative_results


@dataclass(frozen=True)
class Block:
    """A residual branch: the sum that it ends in, what is added to it, and the nodes of the branch."""

    name: str
    sum: str
    shortcut: str
    nodes: tuple[str, ...]


def find_blocks(network: Network) -> list[Block]:
    """Return the residual blocks whose shortcut is what they read itself, in running order."""
    graph, found = network.graph, []
    for node in graph.nodes:
        if node.op != "add" or len(node.inputs) != 2:
            continue
        for shortcut, end in (node.inputs, reversed(node.inputs)):
            branch = _branch(graph, node, shortcut, end)
            shapes = [network.shapes.get(name, network.image) for name in (shortcut, end)]
            if (
                branch
                and shapes[0] == shapes[1]
                and any(graph.by_name[name].operator.layer for name in branch)
            ):
                found.append(Block(_common_path(branch), node.name, shortcut, tuple(branch)))
                break
    return found


def without_block(network: Network, block: Block) -> Network:
    """Return a network of its own, with the same weights, without a block; `network` is not changed."""
    graph = _without_vain_relus(
        network.graph.replace_nodes({block.sum: ()}, {block.sum: block.shortcut})
    )
    shorter = Network(graph, network.image)
    state = network.state_dict()
    shorter.load_state_dict(
        {name: state[name].detach().clone() for name in shorter.state_dict()}, assign=True
    )
    return shorter.train(network.training)


def _branch(graph: Graph, end_of_all: Node, shortcut: str, end: str) -> list[str]:
    """Return the nodes between a shortcut's beginning and its sum; none where something else reads them or they read.

    Tensors of the network that stand alone may be read as well.
    """
    found: set[str] = set()
    todo = [end]
    while todo:
        name = todo.pop()
        if name == shortcut or name in found:
            continue
        node = graph.by_name.get(name)
        if node is None:
            return []
        found.add(name)
        todo += node.inputs
    closed = all(
        reader.name in found or reader is end_of_all
        for name in found
        for reader in graph.readers[name]
    )
    reads_shortcut = any(shortcut in graph.by_name[name].inputs for name in found)
    return (
        [node.name for node in graph.nodes if node.name in found]
        if closed and reads_shortcut
        else []
    )


def _without_vain_relus(graph: Graph) -> Graph:
    """Leave out ReLUs of what can not be negative."""
    positive = non_negative_results(graph)
    vain: Mapping[str, str] = {
        node.name: node.inputs[0]
        for node in graph.nodes
        if node.op == "relu" and node.inputs[0] in positive
    }
    return graph.replace_nodes(dict.fromkeys(vain, ()), vain)


def _common_path(names: list[str]) -> str:
    paths = [name.split(".") for name in names]
    common = 0
    while len({tuple(path[: common + 1]) for path in paths}) == 1 and common < min(map(len, paths)):
        common += 1
    return ".".join(paths[0][:common]) or names[0]
