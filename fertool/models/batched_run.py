"""A network that runs node by node on many images, of whose maps only those in use are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from fertool.graph.ir import Node
from fertool.graph.network import Network, NodeCall


class BatchedRun:
    """Runs a network in eval mode on some batches of images [N, C, H, W], as far as it is asked to.

    A node runs on all batches before the next one does, so that its layer can be changed by what
    arrives. The maps of a batch are dropped as soon as nothing reads them any more.
    """

    def __init__(self, network: Network, batches: Sequence[Tensor]) -> None:
        self._network = network
        self._inserted = network.inserted
        self._steps = list(zip(network.graph.nodes, network.steps, strict=True))
        self._next = 0
        name = network.graph.input
        self._values: dict[str, list[Any]] = {name: [self._passed(name, x) for x in batches]}
        self._count = len(batches)

    def inputs_of(self, name: str) -> list[Tensor]:
        """Run all nodes before this one; returns its first input by batch, to be read only."""
        while self._steps[self._next][0].name != name:
            self._run_next()
        node, _ = self._steps[self._next]
        return self._values[node.inputs[0]]

    def outputs_of(self, name: str) -> list[Tensor]:
        """Run all nodes up to this one; returns its result by batch, to be read only."""
        self.inputs_of(name)
        self._run_next()
        return self._values[name]

    def _run_next(self) -> None:
        node, step = self._steps[self._next]
        compute = self._network.eval_function(node)
        self._values[node.name] = [None] * self._count
        for number in range(self._count):
            self._run_batch(node, step, compute, number)
        for name in step.last_uses:
            del self._values[name]
        self._next += 1

    def _run_batch(
        self, node: Node, step: NodeCall, compute: Callable[..., Any], number: int
    ) -> None:
        arguments = [self._values[name][number] for name in node.inputs]
        result = compute(*arguments)
        self._values[node.name][number] = self._passed(node.name, result)
        # At once: the maps of all batches before a node and behind it take twice the memory.
        for name in step.last_uses:
            self._values[name][number] = None

    def _passed(self, name: str, result: Any) -> Any:
        """Return a result behind the module that is inserted after its node, if any."""
        module = self._inserted.get(name)
        return result if module is None else module(result)
