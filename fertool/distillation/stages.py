"""The feature maps at the end of each spatial resolution of a network, found in its graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fertool.graph.ir import Node
from fertool.graph.network import Network
from fertool.models import require_static

_MAX_SIZES_IN_A_BLOCK = 2
"""A block may shrink its map once; a module that does so more often is a sequence of blocks."""


@dataclass(frozen=True)
class Stage:
    """The node with the last map of a resolution: its name, channels, and [H, W] in pixels."""

    name: str
    channels: int
    size: tuple[int, int]


def find_stages(module: nn.Module) -> tuple[Stage, ...]:
    """Return the last feature map of each spatial resolution, in execution order.

    Maps are taken between blocks, never inside one, where a shortcut may bypass them: everything
    after such a map depends on what is before it through the map alone. Names of nodes are module
    paths, as far as the network comes from modules: a block is the outermost path whose nodes
    change the resolution once at most, and ends with its last node. Maps of a single pixel are no
    stages.

    Raises FertoolError for a dynamic network.
    """
    network = require_static(module)
    stages: dict[tuple[int, int], Stage] = {}
    block_ends = _block_ends(network)
    for name in _cut_points(network):
        size = _map_size(network, name)
        if size is not None and name in block_ends:
            # Removed first, so that the new entry is the last of the dict.
            stages.pop(size, None)
            stages[size] = Stage(name, network.shapes[name][0], size)
    return tuple(stages.values())


@contextmanager
def capture_feature_maps(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, collect the results of the named nodes each time that they run."""
    network = require_static(module)
    maps: dict[str, Tensor] = {}
    listeners = {name: partial(maps.__setitem__, name) for name in names}
    network.listeners.update(listeners)
    try:
        yield maps
    finally:
        # After an error too: a listener that stays would hold the maps of every later batch.
        for name in listeners:
            del network.listeners[name]


def _block_ends(network: Network) -> set[str]:
    """Return the last node of each block."""
    sizes_in: dict[str, set[tuple[int, int]]] = {}
    last_node: dict[str, str] = {}
    for node in network.graph.nodes:
        sizes = _sizes_around(network, node)
        for path in _module_paths(node.name):
            sizes_in.setdefault(path, set()).update(sizes)
            last_node[path] = node.name

    ends: set[str] = set()
    for node in network.graph.nodes:
        block = node.name
        # The outermost path comes first, and the node itself is a block if no path is.
        for path in _module_paths(node.name):
            if len(sizes_in[path]) <= _MAX_SIZES_IN_A_BLOCK:
                block = path
                break
        ends.add(last_node[block])
    return ends


def _sizes_around(network: Network, node: Node) -> set[tuple[int, int]]:
    """Return the sizes of the maps that a node reads and makes."""
    sizes: set[tuple[int, int]] = set()
    for name in (*node.inputs, node.name):
        size = _map_size(network, name)
        if size is not None:
            sizes.add(size)
    return sizes


def _module_paths(name: str) -> Iterator[str]:
    """Yield the module paths that contain a node, the outermost first, and its own name."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _map_size(network: Network, name: str) -> tuple[int, int] | None:
    """Return [H, W] of a node's result, or of the input; None unless it has more than one pixel."""
    shape = network.shapes.get(name, network.image)
    if len(shape) != 3 or shape[1] * shape[2] <= 1:
        return None
    return shape[1], shape[2]


def _cut_points(network: Network) -> Iterator[str]:
    """Yield the nodes whose result alone carries the image to the nodes after them."""
    # Results that a later node still reads.
    live = {network.graph.input}
    # Results of constants alone: they reach later nodes too, but carry nothing of the image.
    constant: set[str] = set()
    for step in network.steps:
        live = (live | {step.name}) - set(step.last_uses)
        if constant.issuperset(step.inputs):
            constant.add(step.name)
        if live - constant == {step.name}:
            yield step.name
