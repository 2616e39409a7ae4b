"""A network as data: which operators run, in which order, on what. Imports no torch; a model file's header holds it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fertool.graph.operator_types import MAX_INPUTS, REQUIRED, Operator
from fertool.graph.operators import OPERATORS
from fertool.strict_json import Name, WrongContentError, as_type, shown

MAX_NODES = 5_000
_MOST_PARTS = 16
"""Of a name, between its dots: each but the last is a module that holds the others."""
_MOST_READS = 50_000
"""Inputs of all nodes together."""
INPUT = "x"
"""What captured graphs call the images."""


@dataclass(frozen=True)
class Node:
    """One operator of a graph: its name, which its tensors bear too, what it reads, and its arguments, all of them."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operator(self) -> Operator:
        """The entry of the table."""
        return OPERATORS[self.op]

    def with_args(self, **changes: Any) -> Node:
        """Return the node with other arguments."""
        return replace(self, args={**self.args, **changes})


@dataclass(frozen=True)
class Graph:
    """The nodes in the order in which they run, the name of the images, and the name of the result."""

    input: str
    nodes: tuple[Node, ...]
    output: str

    @functools.cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """By the name of a node, or of the images, the nodes that read its result."""
        found: dict[str, list[Node]] = {self.input: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                found[source].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def channels(self) -> dict[str, int]:
        """The channels that each layer which mixes channels makes, by its name."""
        mixing = [node for node in self.nodes if node.operator.channel_effect == "mixes"]
        return {
            node.name: node.args.get("out_channels") or node.args["out_features"] for node in mixing
        }

    def replace_nodes(
        self,
        changed: Mapping[str, Iterable[Node]] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> Graph:
        """Return the graph with each of the nodes `changed` replaced by some others, or by none.

        `renamed` says whose result is read instead of a node's. What nothing reads any more goes.
        """
        targets = dict(renamed or {})

        def final(name: str) -> str:
            while name in targets:
                name = targets[name]
            return name

        nodes = [new for node in self.nodes for new in (changed or {}).get(node.name, (node,))]
        nodes = [replace(node, inputs=tuple(map(final, node.inputs))) for node in nodes]
        return replace(self, nodes=tuple(nodes), output=final(self.output)).without_dead_nodes()

    def without_dead_nodes(self) -> Graph:
        """Return the graph without the nodes on which the result does not depend."""
        wanted = {self.output}
        for node in reversed(self.nodes):
            if node.name in wanted:
                wanted.update(node.inputs)
        return replace(self, nodes=tuple(node for node in self.nodes if node.name in wanted))

    def to_builtins(self) -> dict[str, Any]:
        """Return the graph as JSON has it; arguments at their default are left out."""
        return {
            "inputs": [self.input],
            "nodes": [_written(node) for node in self.nodes],
            "outputs": [self.output],
        }

    @classmethod
    def from_builtins(cls, data: Any) -> Graph:
        """Return the graph of a JSON value; raises WrongContentError for what is none, naming the first flaw.

        Names are unique, nodes read only what stands before them, operators are known, their arguments within bounds.
        Whether shapes fit each other shows where a network is built.
        """
        found = as_type(data, _WrittenGraph, known_only=True)
        (input,), (output,) = found.inputs, found.outputs
        nodes = tuple(
            make_node(entry.name, entry.op, entry.inputs, **entry.args) for entry in found.nodes
        )
        _require_order(input, nodes, output)
        return cls(input, nodes, output)


class _WrittenNode(msgspec.Struct, frozen=True, rename={"inputs": "in"}):
    """A node as JSON has it."""

    name: Name
    op: Name
    inputs: Annotated[tuple[Name, ...], Meta(max_length=MAX_INPUTS)] = ()
    args: Annotated[dict[Name, Any], Meta(max_length=16)] = {}


@dataclass(frozen=True)
class _WrittenGraph:
    inputs: tuple[Name]
    nodes: Annotated[tuple[_WrittenNode, ...], Meta(min_length=1, max_length=MAX_NODES)]
    outputs: tuple[Name]


def make_node(name: str, op: str, inputs: Iterable[str], **args: Any) -> Node:
    """Return a node with the defaults filled in; raises WrongContentError for what the operator refuses."""
    operator, inputs = OPERATORS.get(op), tuple(inputs)
    parts = name.split(".")
    if "" in parts or len(parts) > _MOST_PARTS:
        raise WrongContentError(
            f"the name {shown(name)} is not 1 to {_MOST_PARTS} parts between dots"
        )
    if operator is None:
        raise WrongContentError(f"node {shown(name)} has the unknown operator {shown(op)}")
    fewest, most = operator.inputs
    if not fewest <= len(inputs) <= most:
        wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise WrongContentError(
            f"node {shown(name)}: {op} reads {wanted} inputs, not {len(inputs)}"
        )
    unknown = next((argument for argument in args if argument not in operator.arguments), None)
    if unknown is not None:
        raise WrongContentError(f"node {shown(name)}: {op} has no argument {shown(unknown)}")
    try:
        typed = as_type(args, _arguments_of(op))
    except WrongContentError as error:
        raise WrongContentError(f"node {shown(name)} ({op}): {error}") from None
    values = {argument: getattr(typed, argument) for argument in operator.arguments}
    if "other" in values and (values["other"] is None) == (len(inputs) == 1):
        raise WrongContentError(f"node {shown(name)}: {op} reads two inputs, or one and a number")
    ends = [
        values[key] for key in ("min", "max", "min_val", "max_val") if values.get(key) is not None
    ]
    if op in ("clamp", "hardtanh") and (not ends or ends[0] > ends[-1]):
        raise WrongContentError(f"node {shown(name)}: {op} has no lower end below an upper one")
    return Node(name, op, inputs, values)


@functools.cache
def _arguments_of(op: str) -> type[Any]:
    """Return a type whose fields are the arguments of an operator."""
    fields: list[Any] = []
    for name, argument in OPERATORS[op].arguments.items():
        required = argument.default is REQUIRED
        fields.append(
            (name, argument.type) if required else (name, argument.type, argument.default)
        )
    return msgspec.defstruct(op, fields, kw_only=True, frozen=True)


def _written(node: Node) -> dict[str, Any]:
    arguments = node.operator.arguments
    args = {name: value for name, value in node.args.items() if value != arguments[name].default}
    found: dict[str, Any] = {"name": node.name, "op": node.op}
    if node.inputs:
        found["in"] = list(node.inputs)
    if args:
        found["args"] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in args.items()
        }
    return found


def _require_order(input: str, nodes: Sequence[Node], output: str) -> None:
    """Raise WrongContentError unless names are unique and nodes read only what stands before them."""
    if sum(len(node.inputs) for node in nodes) > _MOST_READS:
        raise WrongContentError(f"the nodes have more than {_MOST_READS:,} inputs")
    many = {input: False}
    for node in nodes:
        if node.name in many:
            raise WrongContentError(f"the name {shown(node.name)} stands there twice")
        for source in node.inputs:
            if source not in many:
                raise WrongContentError(
                    f"node {shown(node.name)} reads {shown(source)}, which stands not before it"
                )
            if many[source] != (node.op == "getitem"):
                what = "one of several results" if many[source] else "a single result"
                raise WrongContentError(
                    f"node {shown(node.name)} ({node.op}) reads {shown(source)}, which is {what}"
                )
        many[node.name] = node.operator.multi_output
    if output == input or many.get(output, True):
        raise WrongContentError(f"the output {shown(output)} is no node with a single result")
