"""One ONNX graph of several networks, of which wider ones run where narrower ones are not sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnx.helper import make_node, make_tensor_value_info

from fertool.artifact.header import PROFILE_OUTPUT
from fertool.exporting.graph_copies import copy_with_prefix, int64_tensor
from fertool.exporting.graph_parts import shape_of

# The names of values below are part of the bytes of every exported file.


def route_cascade(
    networks: Sequence[ModelProto], thresholds: Sequence[float], classes: int
) -> ModelProto:
    """Join graphs of images to logits [N, classes], the widest first.

    A Loop takes the images one by one: the narrowest network sees each, and an If asks the next
    wider one where the difference of the two largest logits is below the threshold. Input and
    first output are those of the networks.
    """
    # An If has one condition, and the images of a batch differ in theirs.
    first = networks[0]
    images, logits = first.graph.input[0], first.graph.output[0]
    nodes = [
        make_node("Shape", [images.name], ["sizes"]),
        make_node("Gather", ["sizes", "zero"], ["count"], axis=0),
        make_node(
            "Loop",
            ["count", ""],
            [logits.name, PROFILE_OUTPUT],
            body=_loop_body(images.name, networks),
        ),
    ]

    _, *image_shape = shape_of(images)
    constants = [
        int64_tensor("zero", 0),
        int64_tensor("one", 1),
        int64_tensor("two", [2]),
        int64_tensor("one image", [1, *image_shape]),
        int64_tensor("classes", [classes]),
    ]
    for index in range(len(networks)):
        constants.append(int64_tensor(f"profile {index}", index))
    for index, threshold in enumerate(thresholds, start=1):
        value = np.asarray(threshold, np.float32)
        constants.append(numpy_helper.from_array(value, f"threshold {index}"))
    outputs = [logits, make_tensor_value_info(PROFILE_OUTPUT, TensorProto.INT64, ["batch"])]
    graph = helper.make_graph(nodes, "cascade", [images], outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=first.opset_import, ir_version=first.ir_version)
    model.producer_name = first.producer_name
    return model


def _loop_body(images: str, networks: Sequence[ModelProto]) -> GraphProto:
    """Return the body of the Loop: one image to a row of logits [classes] and its profile []."""
    answers = _answers(networks, len(networks) - 1)
    logits, profile = answers.output
    nodes = [
        make_node("Gather", [images, "number"], ["pixels"], axis=0),
        make_node("Reshape", ["pixels", "one image"], ["image"]),
        *answers.node,
        make_node("Reshape", [logits.name, "classes"], ["row"]),
        make_node("Identity", [profile.name], ["mine"]),
        make_node("Identity", ["going on"], ["go on"]),
    ]
    inputs = [
        make_tensor_value_info("number", TensorProto.INT64, []),
        make_tensor_value_info("going on", TensorProto.BOOL, []),
    ]
    # ONNX stacks what each pass of a Loop adds behind the condition.
    outputs = [
        make_tensor_value_info("go on", TensorProto.BOOL, []),
        make_tensor_value_info("row", TensorProto.FLOAT, [None]),
        make_tensor_value_info("mine", TensorProto.INT64, []),
    ]
    return helper.make_graph(nodes, "image", inputs, outputs, initializer=answers.initializer)


def _answers(networks: Sequence[ModelProto], index: int) -> GraphProto:
    """Return the graph of "image" [1, C, S, S] to logits [1, K] and the profile that they are of.

    The network of this index computes them, or a wider one where its margin is too small.
    """
    network = networks[index].graph
    copied = copy_with_prefix(network, f"{index}/", {network.input[0].name: "image"})
    own = copied.output[0].name
    nodes = list(copied.node)
    if index == 0:
        nodes += _keep(own, index)
    else:
        # In a branch of the If a network runs only where it is needed.
        condition = f"unsure {index}"
        nodes += _compare_margin(own, index, condition)
        kept = helper.make_graph(_keep(own, index), f"{index} is sure", [], _outputs(index))
        wider = _answers(networks, index - 1)
        results = [f"result {index}", f"result profile {index}"]
        nodes.append(make_node("If", [condition], results, then_branch=wider, else_branch=kept))
        return helper.make_graph(
            nodes, f"{index} or wider", [], _outputs(index, "result"), list(copied.initializer)
        )
    return helper.make_graph(nodes, "widest", [], _outputs(index), list(copied.initializer))


def _keep(logits: str, index: int) -> list[NodeProto]:
    """Return the nodes that make the logits of a network the answer."""
    return [
        make_node("Identity", [logits], [f"answer {index}"]),
        make_node("Identity", [f"profile {index}"], [f"answer profile {index}"]),
    ]


def _outputs(index: int, prefix: str = "answer") -> list[ValueInfoProto]:
    return [
        make_tensor_value_info(f"{prefix} {index}", TensorProto.FLOAT, [None, None]),
        make_tensor_value_info(f"{prefix} profile {index}", TensorProto.INT64, []),
    ]


def _compare_margin(logits: str, index: int, condition: str) -> list[NodeProto]:
    """Return the nodes that compare the difference of the two largest logits with a threshold."""
    top, largest, second = f"top {index}", f"largest {index}", f"second {index}"
    margin = f"margin {index}"
    return [
        make_node("TopK", [logits, "two"], [top, f"places {index}"], axis=1),
        make_node("Gather", [top, "zero"], [largest], axis=1),
        make_node("Gather", [top, "one"], [second], axis=1),
        make_node("Sub", [largest, second], [margin]),
        make_node("Less", [margin, f"threshold {index}"], [condition]),
    ]
