"""The inner feature maps of a network, one for each spatial resolution, found in its graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from fertool.graph.network import Network
from fertool.models import static


@dataclass(frozen=True)
class Stage:
    """The node whose result is the last map of its resolution: its name, channels, and [H, W] in pixels."""

    name: str
    channels: int
    size: tuple[int, int]


def find_stages(module: nn.Module) -> tuple[Stage, ...]:
    """Return the last feature map of each spatial resolution, in the order in which the network makes them.

    Maps are taken between blocks, never inside one, where a shortcut may go past them: everything behind such a map
    depends on what is before it through the map alone. Maps of a single pixel are no stages.
    Raises FertoolError for a dynamic network.
    """
    network = static(module)
    last: dict[tuple[int, int], Stage] = {}
    for name in _passages(network):
        shape = network.shapes[name]
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            size = (shape[1], shape[2])
            last.pop(size, None)
            last[size] = Stage(name, shape[0], size)
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


def _passages(network: Network) -> Iterator[str]:
    """Yield the nodes whose result is all that the nodes behind them read of what the images have become."""
    alive = {network.graph.input}
    independent: set[str] = set()
    for step in network.steps:
        alive = (alive | {step.name}) - set(step.done_with)
        if independent.issuperset(step.inputs):
            independent.add(step.name)
        if alive - independent == {step.name}:
            yield step.name
