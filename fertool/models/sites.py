"""Where an INT8 network rounds its activations: decided by the structure alone, the same on every machine.

A runtime turns an operator into its integer form when a quantiser stands before and behind it, so that every result of
a computation gets one, with three exceptions. A ReLU or ReLU6 straight behind a computation shares the quantiser behind
it, whose range already clips. What only moves values (pooling by maximum, chunk, shuffle, flatten) keeps the grid of
its input, and the parts of a concatenation share one grid where they can: no second rounding. A linear layer that makes
the logits leaves them as floats.

HardSigmoid(x) = min(max(x + 3, 0), 6) / 6 needs no table and no float: on a grid on which -3 is 0 steps and 0 a whole
number of steps, it is the same integers, clipped at twice that number, on a grid of a sixth of the step. So the values
that are read by HardSigmoid and HardSwish alone get such a grid (a `gated` site: smaller values are worth -3 to both),
and a HardSigmoid on it that is only multiplied with is rounded no more.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from fertool.models.folding import called_module
from fertool.spec import InputSpec

GATE_KNEE = 3.0
"""HardSigmoid is 0 below minus this and 1 above it."""
_CLIPS: tuple[Any, ...] = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu", "relu_")
_HARD_SIGMOIDS: tuple[Any, ...] = (nn.Hardsigmoid, F.hardsigmoid)
HARD_SWISHES: tuple[Any, ...] = (nn.Hardswish, F.hardswish)
PRODUCTS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_SIZES: tuple[Any, ...] = ("size", "dim", getattr)
_SPLITS: tuple[Any, ...] = (torch.chunk, torch.split, "chunk", "split")
_CONCATENATIONS: tuple[Any, ...] = (torch.cat, torch.concat)
_MOVES: tuple[Any, ...] = (
    *(nn.MaxPool2d, nn.Flatten, nn.ChannelShuffle, F.max_pool2d, F.channel_shuffle, operator.getitem),
    *(torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.squeeze, torch.unsqueeze),
    *("flatten", "reshape", "view", "transpose", "permute", "squeeze", "unsqueeze", "contiguous", *_SPLITS),
)
_NOT_NEGATIVE: tuple[Any, ...] = (
    *(*_CLIPS, *_HARD_SIGMOIDS, nn.Sigmoid, nn.Softmax, F.sigmoid, F.softmax, torch.sigmoid, "sigmoid"),
)
_KEEP_SIGN: tuple[Any, ...] = (
    *(*_MOVES, *_CONCATENATIONS, nn.AvgPool2d, nn.AdaptiveAvgPool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
    *(operator.add, operator.iadd, torch.add, "add", "add_", *PRODUCTS),
)


@dataclass(frozen=True)
class Site:
    """One quantiser: its name and the graph nodes whose results pass through it.

    `gated` holds the two ends beyond which its readers tell no values apart, -3 and 3 or infinity, where all of them
    are HardSigmoid or HardSwish; else None.
    """

    name: str
    nodes: tuple[str, ...]
    gated: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sites:
    """The quantisers of a network in the order in which they run, and the one that each layer reads from.

    `layer_inputs` names every convolution and linear layer that can be integer. The site is None where a layer reads
    the pixels themselves, whose grid is that of the InputSpec.
    """

    sites: tuple[Site, ...]
    layer_inputs: dict[str, str | None]


def exact_pixels(input: InputSpec) -> bool:
    """Return whether one uint8 grid holds the normalised pixels of all channels, so that they need no rounding."""
    return len(set(input.zero_point)) == 1 and len(set(input.scale)) == 1


def find_sites(graph_module: fx.GraphModule, input: InputSpec) -> Sites:
    """Return the quantisers of a folded network; nothing is computed, so that any device will do."""
    plan = _Plan(graph_module, input)
    groups: dict[fx.Node, list[str]] = {}
    names: dict[fx.Node, str] = {}
    taken: Counter[str] = Counter()
    for node in plan.tensors:
        root = plan.root(node)
        if root in plan.unrounded:
            continue
        if root not in groups:
            groups[root], name = [], _scoped_name(node)
            names[root] = f"{name}.{taken[name]}" if taken[name] else name
            taken[name] += 1
        if node not in plan.passed_on:
            groups[root].append(node.name)
    calls = Counter(node.target for node in plan.tensors if node.op == "call_module")
    layers = [n for n in plan.tensors if isinstance(plan.layer(n), nn.Conv2d | nn.Linear) and calls[n.target] == 1]
    return Sites(
        tuple(Site(names[root], tuple(nodes), plan.gated.get(root)) for root, nodes in groups.items()),
        {str(node.target): names.get(plan.root(node.all_input_nodes[0])) for node in layers},
    )


class _Plan:
    """Nodes of equal grid, by union of sets: `root` names a node's set, `unrounded` holds the sets without quantiser.

    `passed_on` are the nodes whose result is rounded only by a later node of the same set. `gated` holds the ends of
    the sets that only HardSigmoid and HardSwish read.
    """

    def __init__(self, graph_module: fx.GraphModule, input: InputSpec) -> None:
        self.graph_module = graph_module
        self.tensors: list[fx.Node] = []
        self.unrounded: set[fx.Node] = set()
        self.passed_on: set[fx.Node] = set()
        self._above: dict[fx.Node, fx.Node] = {}
        self._known: set[fx.Node] = set()
        self._not_negative: set[fx.Node] = set()
        for node in graph_module.graph.nodes:
            if self._holds_activations(node):
                self.tensors.append(node)
                self._place(node, exact_pixels(input))
        self.gated = self._gated_sets()
        self.unrounded |= {node for node in self.tensors if self._is_gate(node)}

    def root(self, node: fx.Node) -> fx.Node:
        while node in self._above:
            node = self._above[node]
        return node

    def layer(self, node: fx.Node) -> nn.Module | None:
        return called_module(node, self.graph_module)

    def _is(self, node: fx.Node, kinds: tuple[Any, ...]) -> bool:
        layer = self.layer(node)
        return node.target in kinds if layer is None else type(layer) in kinds

    def _holds_activations(self, node: fx.Node) -> bool:
        """Sizes, and what is computed from sizes and constants alone, are no activations."""
        if node.op == "placeholder":
            return True
        from_activations = any(source in self._known for source in node.all_input_nodes)
        return node.op != "output" and node.target not in _SIZES and from_activations

    def _place(self, node: fx.Node, pixels_exact: bool) -> None:
        sources = [source for source in node.all_input_nodes if source in self._known]
        self._known.add(node)
        same_sign = len({source in self._not_negative for source in sources}) == 1
        if self._is(node, _NOT_NEGATIVE) or (
            self._is(node, _KEEP_SIGN) and same_sign and sources[0] in self._not_negative
        ):
            self._not_negative.add(node)
        if node.op == "placeholder":
            self.unrounded.update({node} if pixels_exact else ())
        elif isinstance(self.layer(node), nn.Linear) and all(user.op == "output" for user in node.users):
            self.unrounded.add(node)
        elif self._is(node, _MOVES):
            self._join(node, sources[0])
        elif self._is(node, _CONCATENATIONS) and same_sign and all(self.root(s) not in self.unrounded for s in sources):
            for source in sources:
                self._join(node, source)
        elif self._is(node, _CLIPS) and self._can_take(sources[0]):
            self._join(node, sources[0])
            self.passed_on.add(sources[0])
        if self._is(node, _SPLITS):
            self.passed_on.add(node)

    def _gated_sets(self) -> dict[fx.Node, tuple[float, float]]:
        readers: dict[fx.Node, list[fx.Node]] = {}
        for node in self.tensors:
            outside = [user for user in node.users if user not in self._known or self.root(user) != self.root(node)]
            readers.setdefault(self.root(node), []).extend(outside)
        return {
            root: (-GATE_KNEE, math.inf if any(self._is(user, HARD_SWISHES) for user in users) else GATE_KNEE)
            for root, users in readers.items()
            if users
            and root not in self.unrounded
            and all(self._is(u, (*_HARD_SIGMOIDS, *HARD_SWISHES)) for u in users)
        }

    def _is_gate(self, node: fx.Node) -> bool:
        gates = self._is(node, _HARD_SIGMOIDS) and self.root(node.all_input_nodes[0]) in self.gated
        return gates and all(self._is(user, PRODUCTS) for user in node.users)

    def _can_take(self, source: fx.Node) -> bool:
        shared = self._is(source, (*_MOVES, *_CONCATENATIONS, *_NOT_NEGATIVE)) or source.op == "placeholder"
        return len(source.users) == 1 and not shared

    def _join(self, node: fx.Node, source: fx.Node) -> None:
        # The earlier node stays the root, so that a site is named after the first layer that it rounds.
        first, second = sorted((self.root(node), self.root(source)), key=self.tensors.index)
        if first is not second:
            self._above[second] = first


def _scoped_name(node: fx.Node) -> str:
    """The layer's name, or the operator's behind that of the block whose forward calls it."""
    if node.op in ("call_module", "placeholder"):
        return str(node.target) if node.op == "call_module" else "input"
    scope = next(reversed(node.meta.get("nn_module_stack") or {"": None}))
    operation = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "op")
    return f"{scope}.{operation}" if scope else str(operation)
