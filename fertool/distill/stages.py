"""The inner feature maps of a network, one for each spatial resolution, found in its graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fertool.graph.network import Network
from fertool.models import static

_CHANGES_IN_A_BLOCK = 1
"""A block may shrink its map once; what does so more often is a row of blocks."""


@dataclass(frozen=True)
class Stage:
    """The node whose result is the last map of its resolution: its name, channels, and [H, W] in pixels."""

    name: str
    channels: int
    size: tuple[int, int]


def find_stages(module: nn.Module) -> tuple[Stage, ...]:
    """Return the last feature map of each spatial resolution, in the order in which the network makes them.

    Maps are taken between blocks, never inside one, where a shortcut may go past them: everything behind such a map
    depends on what is before it through the map alone. Names of nodes are paths of modules, as far as the network comes
    from some: a block is the outermost path whose nodes change the resolution once at most, and ends with its last
    node. Maps of a single pixel are no stages.
    Raises FertoolError for a dynamic network.
    """
    network = static(module)
    last: dict[tuple[int, int], Stage] = {}
    ends = _ends_of_blocks(network)
    for name in _passages(network):
        size = _size_of(network, name)
        if size is not None and name in ends:
            last.pop(size, None)
            last[size] = Stage(name, network.shapes[name][0], size)
    return tuple(last.values())


@contextmanager
def recorded(module: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the context, put the results of the nodes with these names into a dict each time that they run."""
    network = static(module)
    maps: dict[str, Tensor] = {}
    added = {name: partial(maps.__setitem__, name) for name in names}
    network.listeners.update(added)
    try:
        yield maps
    finally:
        for name in added:
            del network.listeners[name]


def _ends_of_blocks(network: Network) -> set[str]:
    """Return the last node of each block."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    last: dict[str, str] = {}
    for node in network.graph.nodes:
        seen = {
            size
            for name in (*node.inputs, node.name)
            if (size := _size_of(network, name)) is not None
        }
        for path in _paths(node.name):
            sizes.setdefault(path, set()).update(seen)
            last[path] = node.name
    ends = set()
    for node in network.graph.nodes:
        block = next(
            (path for path in _paths(node.name) if len(sizes[path]) <= 1 + _CHANGES_IN_A_BLOCK),
            node.name,
        )
        ends.add(last[block])
    return ends


def _paths(name: str) -> Iterator[str]:
    """Yield the paths on which a node lies, the outermost first, and its own."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _size_of(network: Network, name: str) -> tuple[int, int] | None:
    """Return the resolution of a result, or of the images, where it is a map of more than one pixel."""
    shape = network.shapes.get(name, network.image)
    return (shape[1], shape[2]) if len(shape) == 3 and shape[1] * shape[2] > 1 else None


def _passages(network: Network) -> Iterator[str]:
    """Yield the nodes whose result is all that the nodes behind them read of what the images have become."""
    alive = {network.graph.input}
    independent: set[str] = set()
    for step in network.steps:
        alive = (alive | {step.name}) - set(step.last_uses)
        if independent.issuperset(step.inputs):
            independent.add(step.name)
        if alive - independent == {step.name}:
            yield step.name
