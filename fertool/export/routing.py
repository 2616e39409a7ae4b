"""One ONNX graph of a gate and several networks, in which a runtime does the work of the chosen one only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

CHOICE_NAME = "profile"
"""The second output: which network each image went through, int64 [N]."""


def routed(gate: ModelProto, networks: Sequence[ModelProto], classes: int) -> ModelProto:
    """Join a graph of images to profile numbers [N] with graphs of images to logits [N, classes].

    The images of each profile are gathered, and an If runs that profile's network on them, so that a batch may hold
    images of all profiles; without any the network does not run. Input and first output are those of the networks.
    """
    images, logits = networks[0].graph.input[0], networks[0].graph.output[0]
    main = _renamed(gate.graph, "g/", {images.name: images.name, gate.graph.output[0].name: CHOICE_NAME})
    constants = [
        _constant("no rows", [0, classes]),
        _constant("images as they come", [-1, *(side.dim_value for side in images.type.tensor_type.shape.dim[1:])]),
        *(_constant(f"profile {index}", index) for index in range(len(networks))),
    ]
    nodes, rows, answers = list(main.node), [], []
    for index, network in enumerate(networks):
        chosen, row, count, there, answer = (f"{what}{index}" for what in ("chosen", "rows", "count", "any", "answer"))
        nodes += [
            helper.make_node("Equal", [CHOICE_NAME, f"profile {index}"], [chosen]),
            # [1, n]; what takes no part in an image's way costs it a few of the runtime's operators all the same.
            helper.make_node("NonZero", [chosen], [row]),
            helper.make_node("Size", [row], [count]),
            helper.make_node("Cast", [count], [there], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                [there],
                [answer],
                then_branch=_on_rows(network.graph, f"{index}/", images.name, row),
                else_branch=_nothing(index),
            ),
        ]
        rows.append(row)
        answers.append(answer)
    nodes += [
        helper.make_node("Concat", rows, ["order"], axis=1),
        helper.make_node("Concat", answers, ["in order"], axis=0),
        helper.make_node("Transpose", ["order"], ["places"], perm=[1, 0]),
        helper.make_node("ScatterND", ["in order", "places", "in order"], [logits.name]),
    ]
    choice = helper.make_tensor_value_info(CHOICE_NAME, TensorProto.INT64, ["batch"])
    graph = helper.make_graph(nodes, "dynamic", [images], [logits, choice], [*main.initializer, *constants])
    joined = helper.make_model(graph, opset_imports=networks[0].opset_import, ir_version=networks[0].ir_version)
    joined.producer_name = networks[0].producer_name
    return joined


def _on_rows(network: GraphProto, prefix: str, images: str, rows: str) -> GraphProto:
    """Return the branch that gathers these images and runs the network on them."""
    mine = f"{prefix}{images}"
    inner = _renamed(network, prefix, {})
    gather = helper.make_node("Gather", [images, rows], [f"{mine} of 1"], axis=0)
    reshape = helper.make_node("Reshape", [f"{mine} of 1", "images as they come"], [mine])
    return helper.make_graph([gather, reshape, *inner.node], prefix, [], list(inner.output), list(inner.initializer))


def _nothing(index: int) -> GraphProto:
    """Return the branch for no images: logits of no rows."""
    empty = helper.make_node("ConstantOfShape", ["no rows"], [f"nothing {index}"])
    output = helper.make_tensor_value_info(f"nothing {index}", TensorProto.FLOAT, [None, None])
    return helper.make_graph([empty], f"nothing {index}", [], [output])


def _renamed(graph: GraphProto, prefix: str, fixed: dict[str, str]) -> GraphProto:
    """Return a copy whose values are called `prefix` and their name, unless `fixed` has another name for them."""

    def name(old: str) -> str:
        return fixed.get(old, prefix + old) if old else ""

    copied = GraphProto()
    copied.CopyFrom(graph)
    for value in (*copied.input, *copied.output, *copied.initializer, *copied.value_info):
        value.name = name(value.name)
    for node in copied.node:
        _rename_ends(node, name)
    return copied


def _rename_ends(node: NodeProto, name: Callable[[str], str]) -> None:
    for ends in (node.input, node.output):
        renamed = [name(end) for end in ends]
        del ends[:]
        ends.extend(renamed)


def _constant(name: str, value: int | Iterable[int]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.int64), name)
