"""A network as data, as the header of a model file holds it. Imports no torch."""

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
_MAX_NAME_PARTS = 16
"""Parts of a name between its dots; each but the last becomes a module that holds the others."""
_MAX_READS = 50_000
"""Inputs of all nodes together."""
_BOUNDS = {"clamp": ("min", "max"), "hardtanh": ("min_val", "max_val")}
"""The arguments of a lower and an upper bound, by operator."""
INPUT = "x"
"""Name of the images in captured graphs."""


@dataclass(frozen=True)
class Node:
    """One operator of a graph: its name, the names of its inputs, and all its arguments.

    A node's tensors are stored under its name.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operator(self) -> Operator:
        """The entry of the operator table."""
        return OPERATORS[self.op]

    @property
    def out_channels(self) -> int:
        """The number of output channels of a layer that mixes channels."""
        return int(self.args.get("out_channels") or self.args["out_features"])

    def with_args(self, **changes: Any) -> Node:
        """Return the node with other arguments."""
        return replace(self, args={**self.args, **changes})


@dataclass(frozen=True)
class Graph:
    """Nodes in running order, and the names of the images and of the result."""

    input: str
    nodes: tuple[Node, ...]
    output: str

    @functools.cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    @functools.cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read a result, by the name of the node that makes it or of the images."""
        found: dict[str, list[Node]] = {self.input: []}
        for node in self.nodes:
            found[node.name] = []
        for node in self.nodes:
            # A node that reads a result twice, as x + x does, is one reader.
            for source in dict.fromkeys(node.inputs):
                found[source].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @property
    def channels(self) -> dict[str, int]:
        """The number of output channels of each layer that mixes channels, by its name."""
        found = {}
        for node in self.nodes:
            if node.operator.channel_effect == "mixes":
                found[node.name] = node.out_channels
        return found

    def replace_nodes(
        self,
        changed: Mapping[str, Iterable[Node]] | None = None,
        renamed: Mapping[str, str] | None = None,
    ) -> Graph:
        """Return the graph with each node named in `changed` replaced by other nodes, or by none.

        `renamed` maps the name of a node to that of the result that its readers read instead. Nodes
        on which the result no longer depends are removed.
        """
        changed = changed or {}
        renamed = renamed or {}

        nodes = []
        for node in self.nodes:
            for new in changed.get(node.name, (node,)):
                inputs = tuple(_final_name(name, renamed) for name in new.inputs)
                nodes.append(replace(new, inputs=inputs))

        output = _final_name(self.output, renamed)
        return replace(self, nodes=tuple(nodes), output=output).without_dead_nodes()

    def without_dead_nodes(self) -> Graph:
        """Return the graph without the nodes on which the result does not depend."""
        needed = {self.output}
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.inputs)
        kept = [node for node in self.nodes if node.name in needed]
        return replace(self, nodes=tuple(kept))

    def to_builtins(self) -> dict[str, Any]:
        """Return the graph as a JSON value, without arguments that have their default."""
        return {
            "inputs": [self.input],
            "nodes": [_node_to_builtins(node) for node in self.nodes],
            "outputs": [self.output],
        }

    @classmethod
    def from_builtins(cls, data: Any) -> Graph:
        """Return the graph of a JSON value.

        Names have to be unique, nodes to read only results of earlier nodes, operators to be known
        and their arguments to be within bounds; raises WrongContentError for the first flaw.
        Whether shapes fit each other is checked when a network is built.
        """
        found = as_type(data, _JsonGraph, known_only=True)
        (input,) = found.inputs
        (output,) = found.outputs
        nodes = []
        for entry in found.nodes:
            nodes.append(make_node(entry.name, entry.op, entry.inputs, **entry.args))
        _check_order(input, nodes, output)
        return cls(input, tuple(nodes), output)


def _final_name(name: str, renamed: Mapping[str, str]) -> str:
    # Neighboring nodes may be removed together: each then refers to the one before it.
    while name in renamed:
        name = renamed[name]
    return name


class _JsonNode(msgspec.Struct, frozen=True, rename={"inputs": "in"}):
    """A node in JSON."""

    name: Name
    op: Name
    inputs: Annotated[tuple[Name, ...], Meta(max_length=MAX_INPUTS)] = ()
    args: Annotated[dict[Name, Any], Meta(max_length=16)] = {}


@dataclass(frozen=True)
class _JsonGraph:
    """A graph in JSON."""

    inputs: tuple[Name]
    nodes: Annotated[tuple[_JsonNode, ...], Meta(min_length=1, max_length=MAX_NODES)]
    outputs: tuple[Name]


def make_node(name: str, op: str, inputs: Iterable[str], **args: Any) -> Node:
    """Return a node with defaults filled in; raises WrongContentError for what is not allowed."""
    inputs = tuple(inputs)
    _check_name(name)
    operator = OPERATORS.get(op)
    if operator is None:
        raise WrongContentError(f"node {shown(name)} has the unknown operator {shown(op)}")
    _check_input_count(name, op, operator, len(inputs))

    values = _typed_arguments(name, op, args)
    if "other" in values:
        _check_operands(name, op, len(inputs), values["other"])
    if op in _BOUNDS:
        _check_bounds(name, op, values)
    return Node(name, op, inputs, values)


def clamp_operator(low: float | None, high: float | None) -> tuple[str, dict[str, float | None]]:
    """Return the operator that clamps to a lower and an upper bound, and its arguments.

    By name where the operator table has one: fusion, folding and quantization know relu's.
    """
    if low == 0 and high is None:
        return "relu", {}
    if low == 0 and high == 6:
        return "relu6", {}
    return "clamp", {"min": low, "max": high}


def _check_name(name: str) -> None:
    parts = name.split(".")
    if "" in parts or len(parts) > _MAX_NAME_PARTS:
        raise WrongContentError(
            f"the name {shown(name)} is not 1 to {_MAX_NAME_PARTS} parts between dots"
        )


def _typed_arguments(name: str, op: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a node, converted to the types of the operator table."""
    known = OPERATORS[op].arguments
    for argument in args:
        if argument not in known:
            raise WrongContentError(f"node {shown(name)}: {op} has no argument {shown(argument)}")

    try:
        typed = as_type(args, _arguments_type(op))
    except WrongContentError as error:
        raise WrongContentError(f"node {shown(name)} ({op}): {error}") from None
    return {argument: getattr(typed, argument) for argument in known}


def _check_input_count(name: str, op: str, operator: Operator, count: int) -> None:
    fewest, most = operator.inputs
    if fewest <= count <= most:
        return
    expected = str(fewest) if fewest == most else f"{fewest} to {most}"
    raise WrongContentError(f"node {shown(name)}: {op} reads {expected} inputs, not {count}")


def _check_operands(name: str, op: str, inputs: int, number: float | None) -> None:
    has_number = number is not None
    if has_number != (inputs == 1):
        raise WrongContentError(f"node {shown(name)}: {op} reads two inputs, or one and a number")


def _check_bounds(name: str, op: str, values: Mapping[str, Any]) -> None:
    # One bound is enough; two may be equal.
    bounds = [values[key] for key in _BOUNDS[op] if values[key] is not None]
    if not bounds or bounds[0] > bounds[-1]:
        raise WrongContentError(f"node {shown(name)}: {op} has no lower bound below an upper bound")


# A type takes longer to make than thousands of nodes take to check.
@functools.cache
def _arguments_type(op: str) -> type[Any]:
    """Return a type whose fields are the arguments of an operator."""
    fields: list[Any] = []
    for name, argument in OPERATORS[op].arguments.items():
        if argument.default is REQUIRED:
            fields.append((name, argument.type))
        else:
            fields.append((name, argument.type, argument.default))
    return msgspec.defstruct(op, fields, kw_only=True, frozen=True)


def _node_to_builtins(node: Node) -> dict[str, Any]:
    """Return a node as a JSON value."""
    found: dict[str, Any] = {"name": node.name, "op": node.op}
    if node.inputs:
        found["in"] = list(node.inputs)
    args = _args_to_builtins(node)
    if args:
        found["args"] = args
    return found


def _args_to_builtins(node: Node) -> dict[str, Any]:
    """Return the arguments that are not at their default; tuples as lists, as JSON has them."""
    found = {}
    for name, value in node.args.items():
        if value != node.operator.arguments[name].default:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _check_order(input: str, nodes: Sequence[Node], output: str) -> None:
    """Raise WrongContentError for repeated names and for nodes that read later results."""
    _check_read_count(nodes)

    is_tuple = {input: False}
    for node in nodes:
        if node.name in is_tuple:
            raise WrongContentError(f"the name {shown(node.name)} is used twice")
        for source in node.inputs:
            _check_source(node, source, is_tuple)
        is_tuple[node.name] = node.operator.multi_output

    if output == input or is_tuple.get(output, True):
        raise WrongContentError(f"the output {shown(output)} is no node with a single result")


def _check_read_count(nodes: Sequence[Node]) -> None:
    # Each input takes time, and nodes may have 1024 of them.
    count = 0
    for node in nodes:
        count += len(node.inputs)
    if count > _MAX_READS:
        raise WrongContentError(f"the nodes have more than {_MAX_READS:,} inputs")


def _check_source(node: Node, source: str, is_tuple: Mapping[str, bool]) -> None:
    """Raise WrongContentError unless a node can read this one of the earlier results."""
    if source not in is_tuple:
        raise WrongContentError(
            f"node {shown(node.name)} reads {shown(source)}, which is not before it"
        )
    # Tuples are only of use to `getitem`, which selects one of their tensors.
    if is_tuple[source] != (node.op == "getitem"):
        what = "a tuple of results" if is_tuple[source] else "a single result"
        raise WrongContentError(
            f"node {shown(node.name)} ({node.op}) reads {shown(source)}, which is {what}"
        )
